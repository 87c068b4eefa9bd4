"""A clean store passes with all its rows; whatever is broken by hand is found, and named."""

import json
from collections import Counter
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import DataConfig, ModelConfig
from sft.data.preparation import REJECTED, prepare_store
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.store_recipe import StoreRecipe
from sft.inspection.check_result import Invariant
from sft.inspection.mask_check import check_store
from sft.inspection.rendered_rows import render_rows
from sft.inspection.source_check import learned_runs
from tests.conftest import WORDS

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "id": "c1", "function": {"name": "look_up", "arguments": {"word": "bell"}}}


def chat_records():
    """Conversations of one to three exchanges, some with a turn that is not trained; calls of tools; a bad record."""
    for i in range(40):
        turns = []
        for j in range(1 + i % 3):
            question, answer = WORDS[(i + j) % 30], f"{WORDS[(i * j) % 30]} – “{'é' * (i % 4)}”\n\n 数{j}"
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if i % 5 == 2:
            turns[1]["train"] = False
        yield {"messages": turns}
    for i in range(4):
        call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        result = {"role": "tool", "content": "it rings", "tool_call_id": "c1"}
        yield {
            "messages": [
                {"role": "user", "content": f"what {i}"},
                call,
                result,
                {"role": "assistant", "content": "so"},
            ],
            "tools": TOOLS,
        }
    yield {"messages": [{"role": "user", "content": "and?"}]}


def token_records():
    for i in range(8):
        yield {"input_ids": [20 + i, 30, 31, 32], "loss_mask": [0, 0, 1, int(i % 2)]}


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


class Prepared:
    """A small store of several formats, with what is needed to check it, or a broken copy of it."""

    def __init__(self, folder, small_records, tokenizer_folder, **settings):
        sources = [
            {"name": "basic", "path": str(small_records.instructions), "format": "instruction"},
            {"name": "chat", "path": write_lines(folder / "chat.jsonl", chat_records()), "format": "messages"},
            {"name": "ids", "path": write_lines(folder / "ids.jsonl", token_records()), "format": "tokens"},
        ]
        sources[0]["task"] = {"column": "task"}
        given = {"bad_records": "quarantine", "max_bad_share": 1.0, "cache_dir": str(folder / "cache")}
        self.data = DataConfig.model_validate({"sources": sources} | given | settings)
        self.model = ModelConfig(path=str(tokenizer_folder))
        self.store = prepare_store(self.data, self.model)
        self.tokenizer = load_tokenizer(self.model)

    @property
    def preparer(self):
        return StoreRecipe.of(self.data, self.model).preparer

    @cached_property
    def renderings(self):
        """Of the whole store, however a copy of it is broken."""
        return list(render_rows(self.store, self.preparer))

    def check(self, store=None, renderings=None):
        store = self.store if store is None else store
        rows = self.renderings if renderings is None else renderings
        return check_store(store, self.tokenizer, self.data.max_len_tokens, rows)

    def broken(self, **arrays):
        """What is wrong with a copy of the store with other arrays: invariant → number of violations."""
        return violations(self.check(replace(self.store, **arrays)))

    def copy(self, name):
        return np.array(getattr(self.store, name))

    def rows_of(self, source):
        return np.flatnonzero(self.store.source_ids == self.store.manifest["sources"].index(source))

    def span(self, row):
        return int(self.store.offsets[row]), int(self.store.offsets[row + 1])


def violations(result):
    return {r.invariant: r.num_violations for r in result.invariants if r.num_violations}


@pytest.fixture(scope="module", params=["chatml", "inst", "think", "mistral", "headers_tools"])
def any_prepared(request, tmp_path_factory, small_records, tokenizer_dir):
    return Prepared(tmp_path_factory.mktemp("stored"), small_records, tokenizer_dir(request.param))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small_records, tokenizer_dir):
    return Prepared(tmp_path_factory.mktemp("stored"), small_records, tokenizer_dir("chatml"))


def test_a_clean_store_passes_with_every_row(any_prepared):
    result, store = any_prepared.check(), any_prepared.store
    assert violations(result) == {}
    assert result.holds
    checked = {r.invariant: r.num_checked for r in result.invariants}
    num_rendered = len(store) - len(any_prepared.rows_of("ids"))
    everywhere = {Invariant.LAYOUT, Invariant.VOCABULARY, Invariant.LENGTH, Invariant.NAMES, Invariant.FIRST_TOKEN}
    everywhere |= {Invariant.LEARNS, Invariant.COUNT}
    by_record = {Invariant.STOP, Invariant.RECORD, Invariant.IDS, Invariant.TURNS}
    by_record |= {Invariant.BEGIN, Invariant.ANSWER, Invariant.CONTROL, Invariant.END}
    assert {checked[invariant] for invariant in everywhere} == {len(store)}
    assert {checked[invariant] for invariant in by_record} == {num_rendered}
    assert checked[Invariant.ACCOUNT] == store.manifest["num_read"] == 120 + 45 + 8


def test_the_counts_are_those_of_the_records(prepared):
    result = prepared.check()
    messages = [record["messages"] for record in list(chat_records())[:-1]]
    num_answers = sum(m["role"] == "assistant" and m.get("train", True) for turns in messages for m in turns)
    num_answers += 120 - prepared.store.manifest["by_source"][0]["num_duplicate"]
    assert result.num_rows == len(prepared.store)
    assert result.num_tokens == len(prepared.store.tokens)
    assert result.num_supervised_tokens == prepared.store.loss_mask.sum()
    assert result.num_stops == num_answers
    assert result.num_answers == num_answers + 8


@pytest.mark.parametrize("settings", [{"overlong": "truncate"}, {"overlong": "drop"}, {"train_on": "last_assistant"}])
def test_a_store_of_other_rules_passes(tmp_path, small_records, tokenizer_dir, settings):
    settings = {"max_len_tokens": 48, "task_tag": {"dropout": 0.5}, "duplicates": "keep"} | settings
    prepared = Prepared(tmp_path, small_records, tokenizer_dir("chatml"), **settings)
    left_out = Counter(json.loads(line)["kind"] for line in (prepared.store.path / REJECTED).read_text().splitlines())
    assert left_out["too long"] or prepared.store.manifest["num_shortened"]
    assert violations(prepared.check()) == {}


@settings(max_examples=10)  # each looks at the whole store
@given(data=st.data())
def test_any_bit_of_the_mask_that_is_turned_is_found_even_if_the_counts_agree(prepared, data):
    row = data.draw(st.sampled_from([*prepared.rows_of("basic"), *prepared.rows_of("chat")]))
    start, end = prepared.span(row)
    at = data.draw(st.integers(start + 1, end - 1))
    mask, num_supervised = prepared.copy("loss_mask"), prepared.copy("num_supervised")
    mask[at] = not mask[at]
    num_supervised[row] = mask[start:end].sum()
    result = prepared.check(replace(prepared.store, loss_mask=mask, num_supervised=num_supervised))
    assert not result.holds
    assert {v.row for r in result.invariants for v in r.first} == {row}


def test_a_bit_set_in_the_prompt_is_found(prepared):
    mask, row = prepared.copy("loss_mask"), prepared.rows_of("basic")[3]
    start, _ = prepared.span(row)
    mask[start + 2] = True
    assert prepared.broken(loss_mask=mask) == {Invariant.COUNT: 1, Invariant.STOP: 1, Invariant.TURNS: 1}


def test_a_first_token_that_is_learned_is_found(prepared):
    mask, row = prepared.copy("loss_mask"), prepared.rows_of("ids")[2]
    mask[prepared.span(row)[0]] = True
    assert prepared.broken(loss_mask=mask) == {Invariant.FIRST_TOKEN: 1, Invariant.COUNT: 1}


def test_a_mask_on_a_prompt_with_the_words_of_the_answer_is_found(small_records, tokenizer_dir, tmp_path):
    echo = Prepared(tmp_path, small_records, tokenizer_dir("chatml"), duplicates="keep")
    source = {"name": "chat", "path": str(tmp_path / "echo.jsonl"), "format": "prompt_completion"}
    write_lines(tmp_path / "echo.jsonl", [{"prompt": "bell", "completion": "bell"}])
    echo.data = DataConfig.model_validate(echo.data.model_dump() | {"sources": [source]})
    echo.store = prepare_store(echo.data, echo.model)
    assert echo.broken() == {}
    mask = echo.copy("loss_mask")
    (learned,) = runs(mask)
    length = learned[1] - learned[0]
    ids = echo.store.tokens
    words = ids[slice(*learned)].tolist()
    start = next(i for i in range(len(ids)) if ids[i : i + length].tolist() == words)
    assert start < learned[0]
    mask[:] = False
    mask[start : start + length] = True
    assert echo.broken(loss_mask=mask) == {Invariant.BEGIN: 1}


def test_a_file_that_was_moved_is_no_violation(small_records, tokenizer_dir, tmp_path):
    made = Prepared(tmp_path, small_records, tokenizer_dir("chatml"))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(small_records.instructions.read_bytes())
    first, *others = made.data.sources
    sources = (first.model_copy(update={"path": str(moved)}), *others)
    made.data = made.data.model_copy(update={"sources": sources})
    assert prepare_store(made.data, made.model).path == made.store.path
    assert made.broken() == {}


def test_an_answer_without_its_stop_is_found(prepared):
    mask, row = prepared.copy("loss_mask"), prepared.rows_of("basic")[5]
    start, end = prepared.span(row)
    mask[start + np.flatnonzero(mask[start:end])[-1]] = False
    found = prepared.broken(loss_mask=mask)
    assert found == {Invariant.COUNT: 1, Invariant.STOP: 1, Invariant.END: 1}


def test_an_answer_that_is_not_learned_is_found(prepared):
    mask, row = prepared.copy("loss_mask"), prepared.rows_of("basic")[7]
    mask[slice(*prepared.span(row))] = False
    assert prepared.broken(loss_mask=mask) == {Invariant.LEARNS: 1, Invariant.COUNT: 1, Invariant.TURNS: 1}


def test_one_of_several_answers_that_is_not_learned_is_found_by_its_record(prepared):
    mask, num_supervised = prepared.copy("loss_mask"), prepared.copy("num_supervised")
    row = next(row for row in prepared.rows_of("chat") if len(runs(mask[slice(*prepared.span(row))])) == 3)
    start, _ = prepared.span(row)
    first, behind = runs(mask[slice(*prepared.span(row))])[1]
    mask[start + first : start + behind] = False
    num_supervised[row] -= behind - first
    assert prepared.broken(loss_mask=mask, num_supervised=num_supervised) == {Invariant.TURNS: 1}


def test_a_mask_that_begins_one_token_early_or_late_is_found(prepared):
    row = prepared.rows_of("chat")[0]
    start, end = prepared.span(row)
    first, _ = runs(prepared.store.loss_mask[start:end])[0]
    for place, learned in ((start + first - 3, True), (start + first, False)):
        mask, num_supervised = prepared.copy("loss_mask"), prepared.copy("num_supervised")
        mask[place : start + first + (not learned)] = learned
        num_supervised[row] = mask[start:end].sum()
        assert Invariant.BEGIN in prepared.broken(loss_mask=mask, num_supervised=num_supervised)


def test_a_mask_shifted_by_one_is_found_in_every_row(prepared):
    found = prepared.broken(loss_mask=np.roll(prepared.store.loss_mask, 1))
    num_rendered = len(prepared.store) - len(prepared.rows_of("ids"))
    assert found[Invariant.STOP] == num_rendered
    # The first row has got the last bit of the last one, so it has another number of runs.
    assert (found[Invariant.BEGIN], found[Invariant.TURNS]) == (num_rendered - 1, 1)


def test_a_header_that_is_learned_is_found(prepared):
    mask, num_supervised = prepared.copy("loss_mask"), prepared.copy("num_supervised")
    row = prepared.rows_of("basic")[9]
    start, end = prepared.span(row)
    first, _ = runs(mask[start:end])[0]
    while prepared.store.tokens[start + first] != prepared.tokenizer.convert_tokens_to_ids("<|im_start|>"):
        first -= 1
        mask[start + first] = True
    num_supervised[row] = mask[start:end].sum()
    found = prepared.broken(loss_mask=mask, num_supervised=num_supervised)
    assert found == {Invariant.BEGIN: 1}


def test_another_id_is_found(prepared):
    tokens, row = prepared.copy("tokens"), prepared.rows_of("basic")[11]
    at = prepared.span(row)[0] + 4
    tokens[at] += 1
    assert prepared.broken(tokens=tokens) == {Invariant.IDS: 1}


def test_an_id_outside_the_vocabulary_is_found(prepared):
    tokens, row = prepared.copy("tokens"), prepared.rows_of("ids")[0]
    tokens[prepared.span(row)[0]] = 60000
    assert prepared.broken(tokens=tokens) == {Invariant.VOCABULARY: 1}


def test_another_number_of_learned_tokens_is_found(prepared):
    num_supervised = prepared.copy("num_supervised")
    num_supervised[-1] += 1
    assert prepared.broken(num_supervised=num_supervised) == {Invariant.COUNT: 1}


def test_rows_that_do_not_fill_the_store_are_found_and_nothing_else_is_looked_at(prepared):
    offsets = prepared.copy("offsets")
    for other in (offsets[:-1], np.append(offsets[:-1], offsets[-1] + 1), offsets + 1):
        assert list(prepared.broken(offsets=other)) == [Invariant.LAYOUT]
    offsets[[3, 4]] = offsets[[4, 3]]
    result = prepared.check(replace(prepared.store, offsets=offsets))
    assert violations(result) == {Invariant.LAYOUT: 1}
    assert [v.row for r in result.invariants for v in r.first] == [3]
    assert {r.num_checked for r in result.invariants[1:-1]} == {0}


def test_a_row_that_is_too_long_is_found(prepared):
    longest = int(prepared.store.lengths.max())
    result = check_store(prepared.store, prepared.tokenizer, longest - 1, prepared.renderings)
    assert violations(result) == {Invariant.LENGTH: int((prepared.store.lengths == longest).sum())}


def test_a_task_or_source_that_has_no_name_is_found(prepared):
    for name in ("task_ids", "source_ids"):
        ids = prepared.copy(name)
        ids[5] = 99
        assert prepared.broken(**{name: ids})[Invariant.NAMES] == 1


def test_a_row_of_another_record_is_found(prepared):
    for name, value in (("record_ids", 119), ("line_numbers", 7), ("task_ids", 0)):
        numbers = prepared.copy(name)
        row = next(row for row in prepared.rows_of("basic")[30:] if numbers[row] != value)
        numbers[row] = value
        assert prepared.broken(**{name: numbers})[Invariant.RECORD] == 1


def test_rows_whose_record_is_missing_from_the_source_are_found(prepared):
    record_ids = prepared.copy("record_ids")
    row = prepared.rows_of("basic")[-1]
    record_ids[row] = 5000
    store = replace(prepared.store, record_ids=record_ids)
    result = prepared.check(store, render_rows(store, prepared.preparer))
    assert violations(result) == {Invariant.RECORD: 1}
    assert [v.row for r in result.invariants for v in r.first] == [row]


def test_records_that_end_before_the_rows_or_after_them_are_found(prepared):
    rows = prepared.renderings
    assert violations(prepared.check(renderings=rows[:-3])) == {Invariant.RECORD: 3}
    assert violations(prepared.check(renderings=[*rows, None])) == {Invariant.RECORD: 1}


def test_answers_that_follow_each_other_at_once_are_told_apart_by_their_stops():
    ids, mask = np.array([1, 5, 9, 6, 7, 9, 2]), np.array([0, 1, 1, 1, 1, 1, 0], dtype=bool)
    assert learned_runs(ids, mask, num_turns=2) == [(1, 3), (3, 6)]
    assert learned_runs(ids, mask, num_turns=1) == [(1, 6)]


def test_a_template_that_refuses_what_is_stored_is_found(prepared):
    refusing = load_tokenizer(prepared.model)
    is_there = "messages|length > 1 and messages[1].content == 'what 2'"
    refusal = "{% if " + is_there + " %}{{ raise_exception('not this one') }}{% endif %}"
    refusing.chat_template = refusal + refusing.chat_template
    result = check_store(prepared.store, refusing, prepared.data.max_len_tokens, prepared.renderings)
    assert violations(result) == {Invariant.IDS: 1}
    assert ["not this one" in v.what for r in result.invariants for v in r.first] == [True]


def test_a_record_that_is_neither_kept_nor_listed_is_found(prepared, tmp_path):
    by_source = [dict(counts) for counts in prepared.store.manifest["by_source"]]
    for name, change in (("num_read", 1), ("num_kept", -1), ("num_bad", 1)):
        changed = [{**counts, name: counts[name] + change} for counts in by_source[:1]] + by_source[1:]
        store = replace(prepared.store, manifest={**prepared.store.manifest, "by_source": changed})
        assert violations(prepared.check(store)) == {Invariant.ACCOUNT: 1}
    lines = (prepared.store.path / REJECTED).read_text().splitlines(keepends=True)
    (tmp_path / REJECTED).write_text("".join(lines[1:]))
    assert violations(prepared.check(replace(prepared.store, path=tmp_path))) == {Invariant.ACCOUNT: 1}


def test_each_violation_says_which_row_and_what(prepared):
    tokens, row = prepared.copy("tokens"), int(prepared.rows_of("basic")[2])
    tokens[prepared.span(row)[0] + 4] += 1
    (found,) = [v for r in prepared.check(replace(prepared.store, tokens=tokens)).invariants for v in r.first]
    assert found.row == row
    assert found.what.startswith("from token 4 on, ")


def runs(mask):
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
