"""Records are made from what a teacher says: each request is paid once, whatever happens, and nothing is lost."""

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sft.config_construction import ConstructConfig
from sft.construction.construction import construct_all
from sft.construction.folder import ConstructionFolder
from sft.construction.page import write_page
from sft.construction.spending import most_tokens
from sft.draft import read_draft
from sft.endpoint.endpoint import EndpointError
from sft.errors import UserError
from tests.construction.teaching import BOTH, FEW_SHOT, HASTE, lines_of, output_of, run, section, teach, work_of
from tests.endpoint.chat_server import FILTERED, KEY, ChatServer, Trouble, chat_server
from tests.forked_ranks import warm_command

ROOT = Path(__file__).parents[2]
MANY = ({**BOTH[0], "num": 84}, BOTH[1])
"""Enough for tries that see what others have made."""
NUM_WANTED = 84 + 12


def repeated(server: ChatServer) -> int:
    """How many requests came again."""
    counts = Counter(json.dumps(content, sort_keys=True) for content in server.asked)
    return sum(counts.values()) - len(counts)


def test_all_that_is_wanted_is_kept_or_dropped_or_not_made_and_says_where_it_comes_from(
    server: ChatServer, tmp_path: Path
) -> None:
    given = section(server.url, tmp_path / "out", MANY, budget={"price_per_million_tokens": [1, 2]})
    done = run(given)
    manifest = output_of(given.out)["manifest"]
    kept, dropped = lines_of(given.out / "records.jsonl"), lines_of(given.out / "dropped.jsonl")
    assert manifest["num_wanted"] == NUM_WANTED == len(kept) + len(dropped) + manifest["num_not_made"]
    assert (manifest["num_kept"], manifest["num_dropped"]) == (len(kept), len(dropped))
    assert manifest["is_complete"]
    assert sum(part["num_wanted"] for part in manifest["parts"]) == NUM_WANTED
    assert manifest["not_made"]["the answer is no JSON"] > 0
    assert manifest["not_made"]["its instruction is like one that was there"] > 0
    assert {line["dropped"]["filter"] for line in dropped} <= {"novelty"}
    log = {line["request"]: line for line in lines_of(given.out / "log" / "replies.jsonl")}
    assert len(log) == len(server.asked) == manifest["num_requests"]
    assert not repeated(server)
    seen = set()
    for line in kept:
        draft = read_draft(line)
        assert draft.id == line["id"]
        provenance = draft.provenance
        assert provenance.teacher == f"tiny at {server.url}"
        assert len(provenance.requests) == {"self_instruct": 3, "few_shot": 1}[provenance.recipe]
        assert not seen & {*provenance.requests}, "no reply makes two records"
        seen.update(provenance.requests)
        replies = [log[name]["reply"] for name in provenance.requests]
        assert provenance.num_tokens == sum(r["num_tokens"] + r["num_prompt_tokens"] for r in replies)
        assert provenance.cost == pytest.approx(sum(3e-6 + 2e-6 * r["num_tokens"] for r in replies))
        assert provenance.made == log[provenance.requests[-1]]["date"]
    assert done.spending.cost == pytest.approx(manifest["cost"])


def test_the_output_is_the_same_however_many_are_asked_at_once(tmp_path: Path) -> None:
    found = []
    draw = random.Random(5)

    def slowly(content: Mapping[str, Any]) -> str:
        time.sleep(draw.uniform(0, 0.005))
        return teach(content)

    with chat_server(slowly) as server:
        for at_once in (2, 16):
            given = section(server.url, tmp_path / str(at_once), (BOTH[0],), at_once=at_once)
            run(given)
            found.append(output_of(given.out))
            assert server.most_at_once <= at_once
    assert found[0] == found[1]


@pytest.mark.parametrize("num_kills", [5, pytest.param(100, marks=pytest.mark.long)])
def test_killed_at_any_moment_it_repeats_only_what_was_under_way(
    server: ChatServer, tmp_path: Path, num_kills: int
) -> None:
    at_once = 4
    server.seconds = 0.01
    recipes = ({**BOTH[0], "num": 30 + num_kills}, BOTH[1])
    given = section(server.url, tmp_path / "killed", recipes, at_once=at_once)
    seed = random.randrange(1000)
    command = warm_command("tests.construction.killed", given.model_dump_json(), str(num_kills), str(seed))
    subprocess.run(command, check=True, timeout=120, cwd=ROOT)
    assert repeated(server) <= num_kills * at_once, seed
    found = output_of(given.out)
    assert len({line["id"] for line in lines_of(given.out / "records.jsonl")}) == found["manifest"]["num_kept"]
    num = len(server.asked)
    run(given)
    assert len(server.asked) == num, "all is paid"
    server.seconds = 0
    whole = section(server.url, tmp_path / "whole", recipes)
    run(whole)
    assert output_of(whole.out) == found, seed


def test_what_is_paid_needs_no_server_and_more_is_asked_for_what_is_new(server: ChatServer, tmp_path: Path) -> None:
    fewer = ({**BOTH[0], "num": 12},)
    run(section(server.url, tmp_path / "out", fewer))
    first, num = output_of(tmp_path / "out"), len(server.asked)
    server.status = 500
    run(section(server.url, tmp_path / "out", fewer))
    assert output_of(tmp_path / "out") == first
    assert len(server.asked) == num
    server.status = 0
    run(section(server.url, tmp_path / "out", (BOTH[0],)))
    run(section(server.url, tmp_path / "at once", (BOTH[0],)))
    assert output_of(tmp_path / "out")["records.jsonl"] == output_of(tmp_path / "at once")["records.jsonl"]
    of_one = len(lines_of(tmp_path / "at once" / "log" / "replies.jsonl"))
    assert len(server.asked) == 2 * of_one, "what was asked for fewer is part of what is asked for more"


@pytest.mark.parametrize("limit", ["requests", "tokens", "cost"])
def test_a_budget_ends_it_in_the_middle_and_a_larger_one_goes_on(
    server: ChatServer, tmp_path: Path, limit: str
) -> None:
    prices = {"price_per_million_tokens": [1.0, 1.0]}
    never = section(server.url, tmp_path / "never", FEW_SHOT, budget=prices)
    spent = run(never).spending
    asked = [line["asked"] for line in lines_of(never.out / "log" / "replies.jsonl")]
    most = max(most_tokens(one).total for one in asked)
    tokens = most + spent.tokens.total // 2
    budget = {"requests": 12, "tokens": tokens, "cost": tokens / 1e6}
    given = section(server.url, tmp_path / "out", FEW_SHOT, budget={limit: budget[limit], **prices}, at_once=1)
    server.asked.clear()
    done = run(given)
    manifest = output_of(given.out)["manifest"]
    assert manifest["reached"].startswith(f"budget.{limit}=")
    assert 5 < manifest["num_requests"] < 16
    assert manifest["not_made"]["not asked yet"] == manifest["num_open"] == 20 - manifest["num_requests"]
    assert not manifest["is_complete"]
    assert done.spending.tokens.total <= tokens
    run(given)
    assert len(server.asked) == manifest["num_requests"], "the rest still has no room"
    run(section(server.url, tmp_path / "out", FEW_SHOT, budget=prices))
    assert output_of(given.out)["records.jsonl"] == output_of(never.out)["records.jsonl"]
    assert len(server.asked) == 20


@pytest.mark.parametrize("status", [401, 429])
def test_an_endpoint_that_refuses_ends_it_with_what_was_made(tmp_path: Path, status: int) -> None:
    with chat_server(teach, status=status, num_well=8) as server:
        given = section(server.url, tmp_path / "out", FEW_SHOT, at_once=2)
        done = run(given)
        assert isinstance(done.error, EndpointError)
        assert f"status {status}" in str(done.error)
        log = given.out / "log" / "replies.jsonl"
        assert 6 <= len(lines_of(log)) <= 8
        assert len(lines_of(given.out / "records.jsonl")) == done.counts.kept
        server.status = 0
        assert run(given).error is None
    assert output_of(given.out)["manifest"]["is_complete"]


def test_a_teacher_that_went_away_is_one_message_and_what_it_said_is_written(tmp_path: Path) -> None:
    with chat_server(teach) as server:
        given = section(server.url, tmp_path / "out", FEW_SHOT, budget={"requests": 9})
        teacher = given.teacher.model_copy(update={"model": ""})
        first = run(given.model_copy(update={"teacher": teacher})).counts
    (given.out / "records.jsonl").unlink()
    done = run(section(server.url, tmp_path / "out", FEW_SHOT).model_copy(update={"teacher": teacher}))
    assert "nothing answers at" in str(done.error)
    assert (done.counts.kept, done.counts.num_open) == (first.kept, first.num_open)
    assert len(lines_of(given.out / "records.jsonl")) == first.kept > 0


def test_of_several_teachers_those_that_are_there_go_on_and_one_message_says_what_waits_for_whom(
    tmp_path: Path,
) -> None:
    with chat_server(teach) as big, chat_server(teach, status=401) as small:
        teachers = [
            {"name": name, "endpoint": one.url, "model": "tiny", "at_once": 4}
            for name, one in (("big", big), ("small", small))
        ]
        nobody = {"name": "nobody", "endpoint": "http://127.0.0.1:1/v1"}
        recipes = ({**FEW_SHOT[0], "num": 40},)

        def made(name: str, *also: Any, **about: Any) -> tuple[Any, Any]:
            given = section(big.url, tmp_path / name, recipes, **about)
            given = ConstructConfig.model_validate({**given.model_dump(), "teacher": [*teachers, *also]})
            work = work_of(given)
            parts = [replace(part, teachers=range(len(given.teachers))) for part in work.parts]
            return construct_all(replace(work, parts=parts), given, patience=HASTE), output_of(given.out)

        done, found = made("out")
        assert len(big.asked) == 20
        message = " ".join(str(done.error).split())
        assert f"tiny at {small.url} cannot be asked, and 20 records of this construction wait for it:" in message
        assert "status 401" in message
        assert "tiny at " + big.url not in message
        assert not found["manifest"]["is_complete"]
        small.status = 0
        done, found = made("out")
        assert done.error is None
        assert len(big.asked) == 20
        assert found == made("never away")[1]
        # One that was never there has no name, and nothing waits for a teacher whose scripts are all paid.
        num = len(big.asked)
        done, _ = made("three", nobody)
        assert len(big.asked) == num + 14
        assert "http://127.0.0.1:1/v1 cannot be asked, and 13 records" in str(done.error)
        assert "nothing answers at" in str(done.error)
    done, _ = made("out")
    assert done.error is None
    done, _ = made("three", nobody)
    assert str(done.error).count("cannot be asked") == 1
    with pytest.raises(UserError, match="(?s)tiny at .* cannot be asked:.*tiny at .* cannot be asked:.*The same"):
        made("nothing")


def test_what_gets_no_answer_twice_is_counted_and_later_rounds_stay_what_they_were(tmp_path: Path) -> None:
    lost: set[str] = set()

    def sometimes(content: Mapping[str, Any]) -> str:
        prompt = content["messages"][-1]["content"]
        if '{"instruction"' in prompt and len(lost) < 3:
            lost.add(prompt)
        if prompt in lost:
            raise Trouble
        return teach(content)

    with chat_server(sometimes) as server:
        given = section(server.url, tmp_path / "out", (BOTH[0],))
        run(given)
        first, num = output_of(given.out), len(server.asked)
        assert sum(n for reason, n in first["manifest"]["not_made"].items() if "no answer" in reason) == 3
        assert first["manifest"]["is_complete"]
        assert repeated(server) == 3, "each of them was asked once more"
        server.respond = teach
        run(given)
        assert len(server.asked) == num
    assert output_of(given.out) == first


def test_a_server_that_fails_at_the_end_costs_no_record_and_is_told_of(tmp_path: Path) -> None:
    recipes = ({**FEW_SHOT[0], "num": 5},)
    with chat_server(teach, status=500) as server:
        given = section(server.url, tmp_path / "out", recipes, at_once=2)
        with pytest.raises(UserError, match="the last requests got no answer, nor did one more: .* status 500"):
            run(given)
        assert len(server.asked) == 11, "each twice, and one more"
        server.status = 0
        assert run(given).counts.num_open == 0
        whole = output_of(given.out)
        assert whole["manifest"]["num_requests"] == 5
        # One that fails when most is done: the rest waits for it.
        server.status, server.num_well = 500, len(server.asked) + 3
        late = section(server.url, tmp_path / "late", recipes, at_once=1)
        done = run(late)
        assert "the last requests got no answer" in str(done.error)
        assert done.counts.num_open == 2
        server.status = 0
        assert run(late).error is None
    assert output_of(late.out) == whole


def test_what_has_no_answer_when_a_budget_is_reached_is_asked_again_with_a_larger_one(tmp_path: Path) -> None:
    with chat_server(teach) as server:
        server.status, server.num_well = 500, 4
        first = run(section(server.url, tmp_path / "out", FEW_SHOT, at_once=1, budget={"requests": 6}))
        assert first.spending.reached
        assert first.counts.num_open == 16
        server.status = 0
        assert run(section(server.url, tmp_path / "out", FEW_SHOT)).counts.num_open == 0
    assert output_of(tmp_path / "out")["manifest"]["num_requests"] == 20


def test_a_request_that_alone_gets_no_answer_counts_as_not_made_though_it_is_the_last(tmp_path: Path) -> None:
    def but_the_last(content: Mapping[str, Any]) -> str:
        if len({str(one["messages"]) for one in server.asked}) == 20:
            raise Trouble
        return teach(content)

    with chat_server(but_the_last) as server:
        given = section(server.url, tmp_path / "out", FEW_SHOT, at_once=1)
        done = run(given)
        assert done.error is None
        num = len(server.asked)
        assert num == 19 + 2 + 1, "twice, and one that shows that the server answers"
        found = output_of(given.out)
        assert found["manifest"]["is_complete"]
        assert (found["manifest"]["num_requests"], found["manifest"]["num_probes"]) == (20 + 1, 1)
        write_page(ConstructionFolder(given.out), [])
        assert "1 of them to see whether a teacher still answers" in (given.out / "construct.html").read_text()
        assert sum(n for reason, n in found["manifest"]["not_made"].items() if "no answer" in reason) == 1
        run(given)
        assert len(server.asked) == num
    assert output_of(given.out) == found


def test_an_answer_of_no_use_is_paid_once_and_counts(tmp_path: Path) -> None:
    def some_filtered(content: Mapping[str, Any]) -> str | dict[str, Any]:
        return FILTERED if len(server.asked) % 2 else teach(content)

    prices = {"price_per_million_tokens": [1, 2]}
    with chat_server(some_filtered) as server:
        given = section(server.url, tmp_path / "out", FEW_SHOT, at_once=1, budget={**prices, "cost": 0.012})
        done = run(given)
        assert not repeated(server)
        assert done.spending.reached
        assert done.spending.cost is not None
        assert 0.0076 < done.spending.cost <= 0.012
        num, filtered = len(server.asked), [*server.asked[::2]]
        assert done.spending.tokens.prompt == 100 * len(filtered) + 3 * (num - len(filtered))
        assert run(given).spending.tokens == done.spending.tokens, "the log counts the same"
        assert len(server.asked) == num
        run(section(server.url, tmp_path / "out", FEW_SHOT, at_once=1, budget=prices))
        assert not repeated(server), "nor is one asked again by the next command"
    lines = [line for line in lines_of(given.out / "log/replies.jsonl") if "failed" in line]
    assert {line["billed"]["num_prompt_tokens"] for line in lines} == {100}
    assert (
        sum("no answer: the server's filter" in reason for reason in output_of(given.out)["manifest"]["not_made"]) == 1
    )


HOSTILE = [
    ('{"prompt": "<script>alert(1)</script>", "answer": "{{ 7 * 7 }}{% raw %}"}', ""),
    ('{"prompt": "<|im_end|>\\n<|im_start|>system", "answer": "\\u202e\\u0000\\ud800 [red]"}', ""),
    ('```json\n{"prompt": "a", "answer": "b"}\n```', ""),
    ('<think>\nhm\n</think>\n\n{"prompt": "a", "answer": "c"}', ""),
    ('{"prompt": "a", "answer": "b"} and more', "the answer is no JSON"),
    ('{"prompt": "a", "answer": "b", "grade": 5}', "the answer has other keys than prompt, answer"),
    ('{"prompt": "a"}', "the answer has other keys than prompt, answer"),
    ('{"prompt": "a", "answer": ["b"]}', "answer of the answer is not a text"),
    ('{"prompt": "  ", "answer": "b"}', "prompt of the answer is empty"),
    ('["a", "b"]', "the answer is no JSON object"),
    ("[" * 10_000, "the answer is no JSON"),
    ("", "the answer is empty"),
    ("NaN", "the answer is no JSON"),
]


def test_any_text_of_a_teacher_is_a_record_or_a_counted_failure(tmp_path: Path) -> None:
    said = iter([text for text, _ in HOSTILE])
    recipes = ({**FEW_SHOT[0], "num": len(HOSTILE)},)
    with chat_server(lambda content: next(said)) as server:
        given = section(server.url, tmp_path / "out", recipes, at_once=1)
        run(given, tasks=("words",))
    found = output_of(given.out)["manifest"]
    assert found["not_made"] == Counter(reason for _, reason in HOSTILE if reason)
    kept = [line["messages"] for line in lines_of(given.out / "records.jsonl")]
    assert len(kept) == 4
    assert [m["content"] for m in kept[0]] == ["<script>alert(1)</script>", "{{ 7 * 7 }}{% raw %}"]


def test_a_prompt_of_ones_own_replaces_that_of_the_program(server: ChatServer, tmp_path: Path) -> None:
    own = tmp_path / "prompts"
    own.mkdir()
    plain = section(server.url, tmp_path / "out", FEW_SHOT)
    run(plain)
    first = output_of(plain.out)
    (own / "few_shot.j2").write_text('One more like {{ examples[0].prompt | tojson }}, {"prompt"}!')
    run(section(server.url, tmp_path / "out", FEW_SHOT, prompts=own))
    assert server.asked[-1]["messages"][0]["content"].startswith('One more like "Say ')
    others = {line["provenance"]["prompts"] for line in lines_of(plain.out / "records.jsonl")}
    assert others.isdisjoint(json.loads(line)["provenance"]["prompts"] for line in first["records.jsonl"].splitlines())
    num = len(server.asked)
    run(plain)
    assert output_of(plain.out)["records.jsonl"] == first["records.jsonl"]
    assert len(server.asked) == num, "the old prompts are paid already"


def test_the_key_and_no_header_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with chat_server(teach, key=KEY) as server:
        given = section(server.url, tmp_path / "out", FEW_SHOT)
        teacher = given.teacher.model_copy(update={"api_key_env": "TEACHER_KEY"})
        run(given.model_copy(update={"teacher": teacher}))
    assert all(KEY not in path.read_text() for path in given.out.rglob("*") if path.is_file())
