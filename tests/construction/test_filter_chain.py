"""The chain: each draft is counted once, kept ones are kept again, and a change of filters asks nobody."""

import errno
import json
import resource
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import DataConfig, ModelConfig
from sft.construction.filters.chain import filtering
from sft.construction.filters.draft_parts import DraftParts
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.held_out_texts import read_held_out
from sft.construction.filters.near_copies import NearCopies
from sft.construction.filters.registry import FILTERS, filter_problems, read_filters
from sft.construction.script import Dropped, Failed, ScriptName
from sft.construction.work import Ended
from sft.data.planning.holdout import held_out_examples
from sft.data.preparation import prepare_store
from sft.data.store_recipe import StoreRecipe
from sft.draft import Draft
from sft.errors import UserError
from tests.conftest import SmallRecords
from tests.construction.drafts import OFF, draft, kept, passed, seeds
from tests.construction.looks import OfEach
from tests.construction.teaching import lines_of, output_of, run, section
from tests.endpoint.chat_server import chat_server

KNOWN = seeds("Write a poem about the sea.", "Count the words of this text.", "Say yes or no.", "Sort 3 1 2 upwards.")
WORDS = ["write", "a", "poem", "about", "sea", "night", "and", "i", "am", "an", "ai", '{"', "```", "海", "\ud800", "\n"]
TEXTS = st.one_of(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), st.text(max_size=12))
EVIDENCE = st.fixed_dictionaries({}, optional={"passage": TEXTS, "answers": st.lists(TEXTS, max_size=3)})
DRAFTS = st.lists(st.builds(lambda p, a, e: draft(p, a, **e), TEXTS, TEXTS, EVIDENCE), max_size=12)
HOLDOUT = {"share": 0.3, "ngram_tokens": 8}
STATELESS: Any = {
    "min_words": 1,
    "copies": False,
    "refusals": True,
    "verify": {"json": "parses", "math": "agree_of_2", "passage": "supported"},
}
ALL: Any = {**STATELESS, "copies": 0.7}


@pytest.fixture(scope="module")
def scratch() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@settings(max_examples=40, deadline=None)
@given(DRAFTS, st.booleans())
def test_made_is_kept_and_dropped_and_what_is_kept_is_kept_again(
    scratch: Path, drafts: list[Draft], with_form: bool
) -> None:
    filters = ALL if with_form else {"form": False, "copies": 0.5, "overlap_with_heldout": "count"}
    ended, found = passed(drafts, filters, scratch, KNOWN, lambda one: "x" if "sea" in str(one) else None)
    assert [one.name.number for one in ended] == [*range(len(drafts))]
    outcomes = [one.outcome for one in ended]
    assert [o.draft if isinstance(o, Dropped) else o for o in outcomes] == drafts
    assert found.num_made == len(drafts) == found.num_kept + found.dropped.total()
    assert found.dropped == Counter((o.filter, o.reason) for o in outcomes if isinstance(o, Dropped))
    again = [o for o in outcomes if isinstance(o, Draft)]
    assert kept(again, filters, scratch, KNOWN) == again
    assert not [*scratch.iterdir()]


@settings(max_examples=40, deadline=None)
@given(DRAFTS, st.randoms(use_true_random=False))
def test_without_copies_the_order_of_drafts_does_not_matter(scratch: Path, drafts: list[Draft], draw: Any) -> None:
    mixed = draw.sample(drafts, len(drafts))
    outcomes = [[repr(one.outcome) for one in passed(some, STATELESS, scratch)[0]] for some in (drafts, mixed)]
    assert sorted(outcomes[0]) == sorted(outcomes[1])


def test_what_is_no_draft_goes_through_and_what_a_killed_one_left_goes(scratch: Path) -> None:
    left = scratch / ".filters-old"
    left.mkdir()
    (left / "signatures").write_bytes(b"x")
    name, one = ScriptName("few_shot", "a/b ü", 3), draft("a b c", "\u2028\r\n\x85x")
    ended = [Ended(name, Failed("x", False)), Ended(name, Dropped(one, "novelty", "y", False)), Ended(name, one)]
    with filtering(read_filters({}), Surroundings(scratch)) as found:
        assert [*found.outcomes(ended)] == ended
    assert (found.num_made, found.num_kept) == (1, 1)
    assert not [*scratch.iterdir()]


def test_what_a_draft_is_dropped_by_is_the_first_filter_in_the_order_of_cost() -> None:
    assert [*FILTERS] == [
        "form",
        "json",
        "numbers",
        "passage",
        "refusals",
        "language",
        "heldout",
        "copies",
        "code",
        "difficulty",
        "judge",
        "diversity",
    ]
    backwards = {"verify": {"code": {"allow_code": True}}, "heldout": "count", "refusals": {}, "copies": 0.5}
    assert [one.name for one in read_filters(backwards)] == ["form", "refusals", "heldout", "copies", "code"]


def test_what_is_noted_is_counted_only_of_what_is_kept_in_the_end(tmp_path: Path) -> None:
    words = " ".join(f"word{i}" for i in range(200))
    drafts = [draft(f"Tell me of the {i}. sea, as {i} see it", f"{words} end{i}") for i in range(5)]
    drafts.append(draft("What is a mountain?", "It is high."))
    counting = {"form": False, "overlap_with_heldout": "count"}
    near: Any = {"similarity_to_existing": None, "near": 0.8}
    ended, found = passed(drafts, {**counting, "copies": near}, tmp_path, (), lambda one: "it is known")
    assert [isinstance(one.outcome, Draft) for one in ended] == [True, *[False] * 4, True]
    assert found.noted == {"heldout: it is known": 2}
    around = Surroundings(tmp_path, of_held_out=lambda: OfEach(lambda one: "it is known"), grade=lambda one: 1.0)
    with filtering(read_filters({**counting, "copies": near, "judge": 2}), around) as none_kept:
        assert not [one for one in none_kept.outcomes(ended) if isinstance(one.outcome, Draft)]
    assert not none_kept.noted


def test_a_full_disk_is_a_message_and_what_others_cannot_do_is_not_called_one(tmp_path: Path) -> None:
    one = draft("Tell me of the sea", "word " * 3000)
    ended = [Ended(ScriptName("few_shot", "words", i), one) for i in range(3)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with filtering(read_filters(OFF), Surroundings(tmp_path)) as found:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(UserError, match=r"construct.out: .* cannot be written: File too large. Make room"):
                found.outcomes(ended)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def asked() -> Iterator[Ended]:
        yield ended[0]
        raise OSError(errno.EMFILE, "Too many open files")

    with filtering(read_filters(OFF), Surroundings(tmp_path)) as found, pytest.raises(OSError, match="Too many open"):
        found.outcomes(asked())
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written: Not a directory"),
        filtering(read_filters(OFF), Surroundings(tmp_path / "file")),
    ):
        pass
    with pytest.raises(UserError, match="near cannot be written: No such file"):
        NearCopies(tmp_path / "none" / "near")


# ---------------------------------------------------------------- the config


def test_forms_that_say_the_same() -> None:
    short = {"min_words": 5, "similarity_to_existing": 0.6, "overlap_with_heldout": "count", "verify": {"math": 3}}
    whole = {
        "form": {"min_words": 5},
        "copies": {"similarity_to_existing": 0.6},
        "heldout": {"mode": "count"},
        "numbers": {"agree_of": "agree_of_3"},
    }
    assert read_filters(short) == read_filters(whole)
    assert [one.name for one in read_filters({})] == ["form", "copies"]
    assert read_filters({"form": {}, "copies": True}) == read_filters({})
    assert read_filters(OFF) == ()


@pytest.mark.parametrize(
    ("forms", "place", "part"),
    [
        ({"refusal": True}, "refusal", "did you mean `refusals`?"),
        ({"similarity_to_existng": 0.7}, "similarity_to_existng", "did you mean `similarity_to_existing`?"),
        ({"jugde": {"at_least": 4}}, "jugde", "did you mean `judge`?"),
        ({"judge": True}, "judge.at_least", "write judge: {at_least: 4"),
        ({"judge": 6}, "judge", "at_least is above 1"),
        ({"judge": {"at_least": 4, "rubric": "none.md"}}, "judge.rubric", "cannot be read"),
        ({"form": {"min_word": 3}}, "form.min_word", "did you mean `min_words`?"),
        ({"form": 3}, "form", "true, false or its settings"),
        ({"form": {"min_words": 9, "max_words": 3}}, "form", "at most max_words"),
        ({"form": {"min_words": 3}, "min_words": 4}, "min_words", "given twice"),
        ({"form": False, "min_words": 4}, "form", "turned off and has settings: min_words"),
        ({"copies": 7}, "copies.similarity_to_existing", "less than or equal to 1"),
        ({"heldout": "drop"}, "heldout.mode", "'remove' or 'count'"),
        ({"verify": {"code": "tests"}}, "code.allow_code", "{allow_code: true}"),
        ({"verify": {"maths": 3}}, "verify.maths", "did you mean `math`?"),
        ({"verify": "code"}, "verify", "no section"),
        ({"numbers": "agree_of_0"}, "numbers.agree_of", "greater than or equal to 1"),
        ({"numbers": "most"}, "numbers.agree_of", "must be a whole number"),
        ({"numbers": {"agree_of": 2, "at_least": 3}}, "numbers", "at most agree_of"),
        ({"json": {"schemas": {"a": {"type": "objekt"}}}}, "json.schemas", "no JSON schema"),
        ({"json": "parse"}, "json", "parses"),
        ({"refusals": {"patterns": ["("]}}, "refusals.patterns", "no regular expression"),
    ],
)
def test_a_wrong_filter_is_one_problem_with_the_way_out(forms: Any, place: str, part: str) -> None:
    (problem,) = filter_problems(forms)
    assert problem.path == f"construct.filters.{place}"
    assert part in f"{problem.rule} {problem.way_out}"


# ---------------------------------------------------------------- in a construction


def speak(content: Any) -> str:
    """Every third answer refuses; prompts are of ten words of their own."""
    number = sum(map(ord, content["messages"][-1]["content"]))
    prompt = " ".join(f"w{number * (i + 3) % 9973}" for i in range(10))
    answer = "I'm sorry, but I can't help with that." if number % 3 == 0 else f"answer {number}"
    return json.dumps({"prompt": prompt, "answer": answer})


def test_other_filters_ask_nobody_again(tmp_path: Path) -> None:
    recipes = ({"kind": "few_shot", "num": 40, "tasks": "all"},)
    with chat_server(speak) as server:
        first = section(server.url, tmp_path / "out", recipes, filters={})
        run(first)
        num, plain = len(server.asked), output_of(first.out)
        strict = section(server.url, first.out, recipes, filters={"refusals": True, "verify": {"json": "parses"}})
    done = run(strict)  # the server is gone
    assert num == 40
    manifest = output_of(first.out)["manifest"]
    assert done.counts.dropped["refusals: the answer is a refusal"] > 5
    assert manifest["num_made"] == manifest["num_kept"] + manifest["num_dropped"] == 40
    assert manifest["dropped"] == dict(done.counts.dropped)
    why = Counter(f"{d['dropped']['filter']}: {d['dropped']['reason']}" for d in lines_of(first.out / "dropped.jsonl"))
    assert why == done.counts.dropped
    assert {path.name for path in first.out.iterdir()} == {"records.jsonl", "dropped.jsonl", "manifest.json", "log"}
    run(first)
    assert output_of(first.out) == plain


def test_drafts_that_touch_the_held_out_examples(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    source = {"name": "words", "path": str(small_records.instructions), "task": {"column": "task"}}
    data = DataConfig.model_validate(
        {"sources": [source], "cache_dir": tmp_path, "max_len_tokens": 256, "holdout": HOLDOUT}
    )
    model = ModelConfig(path=str(tiny_model_dir), dtype="float32")
    store, tokenizer = prepare_store(data, model), StoreRecipe.of(data, model).preparer.pipeline.tokenizer
    held_out = held_out_examples(store, data.holdout)
    texts = read_held_out(store, data.holdout, tokenizer.plain)

    def of_held_out(one: Draft) -> str | None:
        return texts.of([DraftParts(one)])[0]

    records = lines_of(small_records.instructions)
    drafts = {
        number: draft("\n".join(filter(None, (r["instruction"], r["input"]))), "Here are new words that nobody used")
        for number in map(int, store.record_ids[:])
        if (r := records[number])
    }
    for example, number in enumerate(store.record_ids[:].tolist()):
        touched = of_held_out(drafts[number])
        if not held_out[example]:
            assert touched is None, "training examples have no run of the held-out ones alone"
    hidden = [drafts[number] for number in store.record_ids[held_out].tolist()]
    assert np.mean([of_held_out(one) is not None for one in hidden]) > 0.5
    ended, found = passed(hidden, {**OFF, "heldout": "remove"}, tmp_path, (), of_held_out)
    assert found.dropped.total() > len(hidden) / 2
    ended, counted = passed(hidden, {**OFF, "overlap_with_heldout": "count"}, tmp_path, (), of_held_out)
    assert all(isinstance(one.outcome, Draft) for one in ended)
    assert counted.noted == {f"heldout: {reason}": num for (_, reason), num in found.dropped.items()}
