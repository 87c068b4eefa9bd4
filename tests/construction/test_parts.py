"""The parts by themselves: how many of which task, what is new, where a line is, and what a config may say."""

import errno
import json
import os
import resource
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config_construction import ConstructionBudget
from sft.construction.asking import Asking
from sft.construction.construction import construct_all
from sft.construction.folder import ConstructionFolder
from sft.construction.offset_table import OffsetTable
from sft.construction.prompts import Prompts
from sft.construction.recipes.registry import recipe_problems
from sft.construction.replaying import Replaying
from sft.construction.request_log import Logged, open_log
from sft.construction.spending import Spending
from sft.construction.teacher import TeacherId
from sft.construction.wanted import Supervised, wanted_counts
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.errors import UserError
from tests.construction.teaching import BOTH, FEW_SHOT, section, work_of

TEACHER = TeacherId("http://127.0.0.1:8000/v1", "tiny")
WORDS = st.lists(st.sampled_from(["red", "green", "blue", "sky", "sea"]), max_size=12)


# ---------------------------------------------------------------- wanted


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 1000), min_size=1), st.integers(1, 500))
def test_what_is_wanted_adds_up_and_goes_to_the_rare(tokens: dict[str, int], num: int) -> None:
    there = {task: have for task, have in tokens.items() if have}
    supervised = {task: Supervised(have, 1) for task, have in tokens.items()}
    if len(set(there.values())) < 2:
        with pytest.raises(UserError, match="no task has fewer"):
            wanted_counts("rare", num, supervised, "x")
        return
    counts = wanted_counts("rare", num, supervised, "x")
    share = sum(there.values()) / len(there)
    assert sum(counts.values()) == num
    assert all(0 < there[task] < share for task in counts)
    for task, count in counts.items():
        others = [counts[other] for other in counts if there[other] >= there[task]]
        assert count >= max(others) - 1, "a task that lacks more gets at least as many, but for rounding"
    assert max(wanted_counts("all", num, supervised, "x").values()) <= -(-num // len(there))


@given(st.lists(st.integers(1, 1000), min_size=4, max_size=9, unique=True))
def test_a_larger_number_takes_no_record_away(have: list[int]) -> None:
    supervised, few = {f"task{i}": Supervised(num, 1) for i, num in enumerate(have)}, dict[str, int]()
    for num in range(1, 60):
        more = wanted_counts("rare", num, supervised, "x")
        assert all(more.get(task, 0) >= count for task, count in few.items())
        few = more


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.tuples(st.integers(1, 1000), st.integers(1, 50)), min_size=1),
    st.integers(1, 2000),
    st.integers(1, 60),
)
def test_no_task_gets_more_than_brings_it_to_its_target_and_with_enough_records_each_does(
    tokens: dict[str, tuple[int, int]], target: int, num: int
) -> None:
    supervised = {task: Supervised(have, min(have, examples)) for task, (have, examples) in tokens.items()}
    lacking = {task: of.num_lacking(target) for task, of in supervised.items() if of.num_tokens < target}
    for task, missing in lacking.items():
        have, examples = supervised[task]
        assert have + (missing - 1) * have / examples < target <= have + missing * have / examples + 1e-6
    if not lacking:
        with pytest.raises(UserError, match="every task has"):
            wanted_counts("rare", num, supervised, "x", tokens_per_task=target)
        return
    assert wanted_counts("rare", sum(lacking.values()) + num, supervised, "x", tokens_per_task=target) == lacking
    counts = wanted_counts("rare", num, supervised, "x", tokens_per_task=target)
    assert sum(counts.values()) == min(num, sum(lacking.values()))
    assert all(0 < count <= lacking[task] for task, count in counts.items())


def test_tasks_that_are_not_there_or_held_out_are_refused() -> None:
    supervised = {"sort": Supervised(5, 1), "copy": Supervised(3, 1), "unseen": Supervised(0, 0)}
    assert wanted_counts(("copy", "sort"), 3, supervised, "x") == {"sort": 2, "copy": 1}
    with pytest.raises(UserError, match="Did you mean 'sort'"):
        wanted_counts(("sorts",), 3, supervised, "x")
    with pytest.raises(UserError, match="x: unseen: held out"):
        wanted_counts(("sort", "unseen"), 3, supervised, "x")


# ---------------------------------------------------------------- the log


@given(st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1), max_size=2000))
def test_an_offset_is_found_by_its_hash(hashes: list[int]) -> None:
    table = OffsetTable()
    for offset, of in enumerate(hashes):
        table.add(of, offset)
    assert len(table) == len(hashes)
    for of in {*hashes, 7, 2**64 - 1}:
        assert [*table.find(of)] == [offset for offset, other in enumerate(hashes) if other == of]


def test_a_logged_request_takes_less_than_fifty_bytes_of_memory() -> None:
    table = OffsetTable()
    for offset in range(100_000):
        table.add(offset * 0x9E3779B97F4A7C15 % 2**64, offset)
        assert len(table) < 1000 or table.num_bytes <= 50 * len(table)


def logged(number: int) -> Logged:
    return Logged(f"{number:032x}", "a", TEACHER, ChatRequest("", [], 8).content())


def test_a_half_line_is_cut_off_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log" / "replies.jsonl"

    def names() -> list[bool]:
        with open_log(path, Spending(ConstructionBudget())) as log:
            return [log.find(f"{i:032x}") is not None for i in range(4)]

    with open_log(path, Spending(ConstructionBudget())) as log:
        for i in range(3):
            log.add(logged(i), ChatReply("é" * i))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert names() == [True, True, True, False]
    assert path.read_bytes() == whole
    for field in (b'"reply"', b'"date"', b'"asked"', b'"request"'):
        path.write_bytes(whole.replace(field, b'"other"', 1))
        with pytest.raises(UserError, match=r"replies.jsonl:1 is damaged .* Remove this line"):
            names()


def test_whatever_was_asked_a_request_is_found_with_its_outcome(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    tools = [
        {"function": {"parameters": {"properties": {"x": {}, "reply": {"text": "x"}, "failed": "y", "asked": {}}}}}
    ]
    asked = ChatRequest("", [], 8, tools=tools).content()
    outcomes = [ChatReply("x"), NoReply("by script"), NoReply("filtered", True, 3, 7), NoReply("half", True)]
    with open_log(path, Spending(ConstructionBudget())) as log:
        for number, outcome in enumerate(outcomes):
            log.add(Logged(f"{number:032x}", "a", TEACHER, asked), outcome)
    with open_log(path, Spending(ConstructionBudget())) as log:
        for number, outcome in enumerate(outcomes):
            kept = log.find(f"{number:032x}")
            assert kept is not None
            assert kept.outcome == outcome


def test_a_line_that_finds_no_room_is_a_message_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with open_log(path, Spending(ConstructionBudget())) as log:
        log.add(logged(0), ChatReply("x"))
        whole = path.read_bytes()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 40, before[1]))  # half a line
        try:
            with pytest.raises(UserError, match="cannot be written: File too large. Make room"):
                log.add(logged(1), ChatReply("x"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_bytes() == whole
        log.add(logged(1), ChatReply("y"))
        kept = log.find(logged(1).name)
        assert kept is not None
        assert kept.outcome == ChatReply("y")


def test_a_log_that_is_not_on_the_disk_in_the_end_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def written() -> None:
        with open_log(tmp_path / "replies.jsonl", Spending(ConstructionBudget())) as log:
            log.add(logged(0), ChatReply("x"))
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(UserError, match="replies.jsonl cannot be written: No space left on device. Make room"):
        written()


def test_a_log_that_the_disk_has_not_taken_meanwhile_is_a_message_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_told, fsync = threading.Event(), os.fsync

    def full_once(file: int) -> None:
        if is_told.is_set():
            return fsync(file)
        is_told.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def written() -> None:
        with open_log(tmp_path / "replies.jsonl", Spending(ConstructionBudget())) as log:
            monkeypatch.setattr(os, "fsync", full_once)
            log.add(logged(0), ChatReply("x"))
            assert is_told.wait(20)

    with pytest.raises(UserError, match="replies.jsonl cannot be written: No space left on device. Make room"):
        written()


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"construct.out: .* cannot be written: Not a directory. Make room"):
        ConstructionFolder(tmp_path / "file" / "made").claim()


# ---------------------------------------------------------------- what is given


@pytest.mark.parametrize(
    ("form", "place", "part"),
    [
        ({"kind": "self_instrct", "num": 3}, "0.kind", "did you mean `self_instruct`?"),
        ({"num": 3}, "0.kind", "add it"),
        ({"kind": "few_shot"}, "0.num", "add it"),
        ({"kind": "few_shot", "num": 3, "shot": 4}, "0.shot", "did you mean `shots`?"),
        ({"kind": "few_shot", "num": 0}, "0.num", "greater than 0"),
        ({"kind": "few_shot", "num": 1, "tasks": "all", "tokens_per_task": 9}, "0", "give `tasks: rare`"),
        ({"kind": "few_shot", "num": 3, "tasks": "rear"}, "0.tasks", "`rare`, `all` or a list"),
        ({"kind": "few_shot", "num": 3, "tasks": 3}, "0.tasks", ""),
        ({"kind": "few_shot", "num": 3, "temperature": 9}, "0.temperature", "must be less than or equal to 2"),
    ],
)
def test_a_wrong_recipe_is_one_problem_with_the_way_out(form: dict[str, Any], place: str, part: str) -> None:
    (problem,) = recipe_problems([form])
    assert problem.path == f"construct.recipes.{place}"
    assert part in f"{problem.rule} {problem.way_out}"


def test_two_recipes_of_one_name_are_refused() -> None:
    (problem,) = recipe_problems([{"kind": "few_shot", "num": 3}] * 2)
    assert (problem.value, problem.rule) == ("few_shot", "2 recipes have this name")
    assert not [*recipe_problems([{"kind": "few_shot", "num": 3}, {"kind": "few_shot", "num": 3, "name": "b"}])]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("few_shots", "x", "replaces no prompt of the program; did you mean `few_shot`"),
        ("few_shot", "a\n{% for x %}", "few_shot.j2 cannot be used: line 2"),
        ("few_shot", "{{ exmples }}", "'exmples' is undefined. What it may use: task, examples"),
        ("few_shot", "{{ ''.__class__.__mro__ }}", "is unsafe|undefined"),
        ("few_shot", "{% include '/etc/passwd' %}", "there is no template /etc/passwd beside it"),
        ("few_shot", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it calls itself without end"),
    ],
)
def test_a_wrong_prompt_is_a_message(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / f"{name}.j2").write_text(text)
    with pytest.raises(UserError, match=message):
        Prompts(tmp_path).render("few_shot", task="t", examples=[])


def test_a_folder_that_replaces_no_prompt_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "few_shot.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds no file NAME\.j2, so it replaces no prompt\. The names are back_tr"):
        Prompts(tmp_path)
    (tmp_path / "few_shot.j2").mkdir()
    with pytest.raises(UserError, match=r"few_shot\.j2 is no file"):
        Prompts(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("mine")
    (tmp_path / ".hidden").write_text("")
    with pytest.raises(UserError, match="not the folder of a construction, and holds records.jsonl"):
        ConstructionFolder(tmp_path).check()
    file = tmp_path / "records.jsonl"
    with pytest.raises(UserError, match="is a file"):
        ConstructionFolder(file).check()


def test_the_estimate_is_of_all_requests(tmp_path: Path) -> None:
    work = work_of(section("http://127.0.0.1:1/v1", tmp_path))
    num, tokens = work.estimate()
    assert num == 3 * BOTH[0]["num"] + BOTH[1]["num"]
    assert tokens.reply == num * 1024
    assert 50 * num < tokens.prompt < 1000 * num
    assert Counter(part.task for part in work.parts) == {"words": 2}


def test_nothing_is_asked_where_nothing_answers(tmp_path: Path) -> None:
    given = section("http://127.0.0.1:1/v1", tmp_path / "out", FEW_SHOT)
    with pytest.raises(UserError, match="nothing answers at"):
        construct_all(work_of(given), given)
    assert json.loads((given.out / "manifest.json").read_text()) == {"kind": "construction", "is_complete": False}


class _Unable:
    """A teacher where this machine cannot even begin to ask."""

    id, title, at_once = TEACHER, "tiny", 1

    def opened(self) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_machine_that_cannot_ask_is_a_message_of_its_own(tmp_path: Path) -> None:
    spending = Spending(ConstructionBudget())
    with open_log(tmp_path / "replies.jsonl", spending) as log:
        work = work_of(section("http://127.0.0.1:1/v1", tmp_path, FEW_SHOT))
        ended = Replaying(work, Asking([_Unable()], log, spending), {}, lambda progress: None).ended()
        with pytest.raises(UserError, match="this machine cannot ask any more: Too many open files"):
            next(ended)
