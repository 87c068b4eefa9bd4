"""A store holds what its inputs say, is found again by them, and is published whole or not at all."""

import gc
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.atomic_files import hash_file, is_published
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.block_preparer import whole_blocks
from sft.data.duplicates import hash_record
from sft.data.formats.formatting import format_record
from sft.data.preparation import REJECTED, prepare_store
from sft.data.reading import blocks
from sft.data.reading.sources import read_records
from sft.data.rendering.chat_template import TemplateRenderer, load_tokenizer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.token_store import TokenStore
from sft.data.tokenization import ExampleTokenizer
from sft.errors import UserError
from sft.schema import Record
from tests.forked_ranks import DONE, logs_of, zygote


@pytest.fixture(scope="module")
def model(tokenizer_dir):
    return ModelConfig(path=str(tokenizer_dir("chatml")))


def data_of(folder, *sources, **settings):
    return DataConfig.model_validate({"sources": sources, "cache_dir": str(folder / "cache")} | settings)


def small_data(folder, small_records, **settings):
    instructions = {"name": "basic", "path": str(small_records.instructions), "format": "instruction"}
    prompts = {"name": "lists", "path": str(small_records.prompts), "format": "prompt_completion"}
    # Some of the short lists are equal.
    return data_of(folder, instructions | {"task": {"column": "task"}}, prompts, **({"duplicates": "keep"} | settings))


def write_prompts(path, rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {"name": "here", "path": str(path), "format": "prompt_completion"}


def left_behind(folder):
    """Everything in the cache but published stores and the locks beside them."""
    tokens = folder / "cache" / "tokens"
    return [p.name for p in tokens.glob("*") if not is_published(p) and p.suffix != ".lock"]


def test_a_store_holds_the_examples_of_its_sources(tmp_path, small_records, model):
    data = small_data(tmp_path, small_records)
    store = prepare_store(data, model)
    tokenizer = load_tokenizer(model)
    renderer = ConversationRenderer(TemplateRenderer(tokenizer), ExampleTokenizer(tokenizer).special_tokens)
    made = [
        (i, format_record(record, source)) for i, source in enumerate(data.sources) for record in read_records(source)
    ]
    expected = ExampleTokenizer(tokenizer).tokenize([rendering for _, c in made for rendering in renderer.render(c)])
    assert len(store) == len(expected) == 180
    for i, ((source_id, c), example) in enumerate(zip(made, expected, strict=True)):
        assert store.example(i).input_ids.tolist() == example.input_ids.tolist()
        assert store.example(i).loss_mask.tolist() == example.loss_mask.tolist()
        assert store.lengths[i] == len(example.input_ids)
        assert store.num_supervised[i] == example.loss_mask.sum()
        assert store.tasks[store.task_ids[i]] == c.task
        assert (store.source_ids[i], store.record_ids[i]) == (source_id, c.index)
        assert store.location(i) == c.where
        assert store.prompt_hashes[i] == np.uint64(hash_record(c).prompt)
    assert store.tasks == ["copy", "count", "lists", "reverse", "sort"]
    assert store.manifest["sources"] == ["basic", "lists"]
    assert Counter(store.tasks[i] for i in store.task_ids) == {
        "copy": 54,
        "reverse": 33,
        "count": 21,
        "sort": 12,
        "lists": 60,
    }


def test_a_store_is_hashed_and_no_token_is_lost(tmp_path, small_records, model):
    store = prepare_store(small_data(tmp_path, small_records), model)
    files = store.manifest["files"]
    assert set(files) == {p.name for p in store.path.iterdir()} - {"manifest.json"}
    for name, entry in files.items():
        assert entry == {"num_bytes": (store.path / name).stat().st_size, "sha256": hash_file(store.path / name)}
    assert store.tokens.dtype == np.uint16
    assert len(store.tokens) == len(store.loss_mask) == store.lengths.sum()
    assert left_behind(tmp_path) == []


GOOD = {"prompt": "one two", "completion": "three"}
KINDS = {
    "good": GOOD,
    "overlong": {"prompt": "one", "completion": "word " * 100},
    "broken": '{"prompt": ',
    "no object": "[1]",
    "empty": {"prompt": "one", "completion": " "},
    "half a pair": '{"prompt": "one", "completion": "\\ud83d"}',
}


@settings(max_examples=15)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=30), st.integers(1, 400))
def test_every_record_is_kept_or_left_out_with_its_reason(tmp_path_factory, model, kinds, block_bytes):
    folder = tmp_path_factory.mktemp("counts")
    source = write_prompts(folder / "data.jsonl", [GOOD, *(KINDS[kind] for kind in kinds)])
    data = data_of(folder, source, max_len_tokens=64, bad_records="quarantine", max_bad_share=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        store = prepare_store(data, model)
    duplicates, overlong = kinds.count("good"), kinds.count("overlong")
    left_out = {i: kind for i, kind in enumerate(kinds, start=2)}
    num_bad = len(kinds) - duplicates - overlong
    found = {name: store.manifest[f"num_{name}"] for name in ("read", "kept", "bad", "too_long", "duplicate")}
    assert found == {
        "read": len(kinds) + 1,
        "kept": 1,
        "bad": num_bad,
        "too_long": overlong,
        "duplicate": duplicates,
    }
    assert len(store) == 1
    assert store.manifest["too_long_by_task"] == ({"here": overlong} if overlong else {})
    assert sum(store.manifest["reasons"].values()) == num_bad
    rejected = [json.loads(line) for line in (store.path / REJECTED).read_text(encoding="utf-8").splitlines()]
    names = {"good": "duplicate", "overlong": "too long"}
    assert {entry["line"]: entry["kind"] for entry in rejected} == {i: names.get(k, "bad") for i, k in left_out.items()}
    assert all(entry["reason"] and entry["file"] == str(folder / "data.jsonl") for entry in rejected)


def test_too_many_bad_records_stop_the_preparation_and_a_higher_limit_goes_on(tmp_path, model, monkeypatch):
    rows = [{"prompt": f"say {i}", "completion": "yes"} for i in range(8)]
    source = write_prompts(tmp_path / "data.jsonl", [*rows, KINDS["empty"], KINDS["broken"]])
    with pytest.raises(UserError, match=r"here: 2 of 10 \(20\.0%\)") as error:
        prepare_store(data_of(tmp_path, source, bad_records="quarantine"), model)
    assert "1 × the field 'completion' is empty" in str(error.value)
    listed = str(error.value).rsplit("Each of them: ", 1)[1]
    assert [json.loads(line)["line"] for line in Path(listed).read_text(encoding="utf-8").splitlines()] == [9, 10]
    counts = count_tokenized(monkeypatch)
    store = prepare_store(data_of(tmp_path, source, bad_records="quarantine", max_bad_share=0.2), model)
    assert (len(store), counts) == (8, [])


def test_a_record_that_cannot_be_used_stops_the_preparation(tmp_path, model):
    source = write_prompts(tmp_path / "data.jsonl", [GOOD, KINDS["broken"], KINDS["empty"], GOOD])
    with pytest.raises(UserError, match="source here: records that cannot be used") as error:
        prepare_store(data_of(tmp_path, source), model)
    assert f"{tmp_path / 'data.jsonl'}:2: broken JSON" in str(error.value)
    assert f"{tmp_path / 'data.jsonl'}:3: the field 'completion' is empty" in str(error.value)
    assert "data.bad_records: quarantine" in str(error.value)
    assert left_behind(tmp_path) == []


def test_an_error_in_a_later_block_leaves_nothing_behind(tmp_path, model, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 80)
    source = write_prompts(tmp_path / "data.jsonl", [GOOD] * 5 + ["[1]"])
    with pytest.raises(UserError, match=r"data\.jsonl:6: the record is a list"):
        prepare_store(data_of(tmp_path, source), model)
    assert left_behind(tmp_path) == []


def test_an_overlong_example_is_an_error_where_the_config_says_so(tmp_path, model):
    source = write_prompts(tmp_path / "data.jsonl", [GOOD, KINDS["overlong"]])
    with pytest.raises(UserError, match=r"data\.jsonl:2: \d+ tokens; data\.max_len_tokens allows 64"):
        prepare_store(data_of(tmp_path, source, max_len_tokens=64, overlong="error"), model)


def test_the_longest_example_may_be_as_long_as_allowed(tmp_path, model):
    source = write_prompts(tmp_path / "data.jsonl", [GOOD])
    (length,) = prepare_store(data_of(tmp_path, source), model).lengths.tolist()
    assert len(prepare_store(data_of(tmp_path, source, max_len_tokens=length), model)) == 1
    with pytest.raises(UserError, match="1 are longer"):
        prepare_store(data_of(tmp_path, source, max_len_tokens=length - 1), model)


def test_where_no_example_is_left_the_reasons_are_given(tmp_path, small_records, model):
    with pytest.raises(
        UserError, match=r"No example is left of 180 records: 180 are longer than data\.max_len_tokens \(4\)"
    ):
        prepare_store(small_data(tmp_path, small_records, max_len_tokens=4), model)
    source = write_prompts(tmp_path / "data.jsonl", ["[1]"])
    with pytest.raises(UserError, match=r"1 cannot be used. .*\n  1 × the record is a number"):
        prepare_store(data_of(tmp_path, source, bad_records="quarantine"), model)
    empty = write_prompts(tmp_path / "empty.jsonl", [])
    with pytest.raises(UserError, match="holds no records"):
        prepare_store(data_of(tmp_path, empty), model)


def test_missing_columns_are_told_before_any_record_is_read(tmp_path, model):
    source = write_prompts(tmp_path / "data.jsonl", ["[1]", {"question": "a", "answer": "b"}])
    with pytest.raises(UserError, match=r"there is no column 'prompt' .* The columns there: question, answer"):
        prepare_store(data_of(tmp_path, source), model)


class Killed(BaseException):
    """As a signal would, this passes every handler of errors."""


def count_tokenized(monkeypatch):
    """How many renderings are tokenized from here on, in a list of one number a block."""
    counts = []
    original = ExampleTokenizer.tokenize

    def counted(self, renderings):
        counts.append(len(renderings))
        return original(self, renderings)

    monkeypatch.setattr(ExampleTokenizer, "tokenize", counted)
    return counts


@pytest.mark.parametrize("num_blocks", [1, 2, 4, 5, 6])
def test_a_killed_preparation_goes_on_and_gives_the_same_bytes(tmp_path, small_records, model, monkeypatch, num_blocks):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    whole = prepare_store(small_data(tmp_path / "whole", small_records), model)
    reports = []

    def kill(progress):
        reports.append(progress)
        if len(reports) == num_blocks:
            raise Killed

    data = small_data(tmp_path / "killed", small_records)
    with pytest.raises(Killed):
        prepare_store(data, model, kill)
    assert not is_published(tmp_path / "killed" / "cache" / "tokens" / whole.path.name)
    parts = tmp_path / "killed" / "cache" / "tokens" / f".{whole.path.name}.parts"
    there = sorted(part.name for part in parts.iterdir())
    assert len(there) == num_blocks
    # Another process was killed while it wrote the next part, and the machine went down while it wrote the last.
    (parts / ".0000-000003.safetensors.1.partial").write_bytes(b"half of a par")
    cut_off = (parts / there[-1]).read_bytes()
    (parts / there[-1]).write_bytes(cut_off[: len(cut_off) // 2])
    counts = count_tokenized(monkeypatch)
    resumed = []
    store = prepare_store(data, model, resumed.append)
    # Only what was not there is made; the cut-off part is made again.
    assert len(counts) == len(resumed) - num_blocks + 1
    assert {p.source: p.num_records for p in resumed} == {"basic": 120, "lists": 60}
    assert store.manifest == whole.manifest
    for name in whole.manifest["files"]:
        assert (store.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert left_behind(tmp_path / "killed") == []


def test_a_failure_that_passes_leaves_what_is_prepared(tmp_path, small_records, model, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    data = small_data(tmp_path, small_records)

    def spread_until_the_cluster_is_gone(preparer, given):
        yield from (preparer.prepare(block) for block in islice(given, 3))
        raise UserError("Ray cannot be used")

    with pytest.raises(UserError, match="Ray"):
        prepare_store(data, model, executor=spread_until_the_cluster_is_gone)
    (parts,) = (tmp_path / "cache" / "tokens").glob(".*.parts")
    assert len(list(parts.iterdir())) == 3
    counts = count_tokenized(monkeypatch)
    prepare_store(data, model)
    assert 0 < sum(counts) < 180
    assert left_behind(tmp_path) == []


def test_a_copy_of_a_near_duplicate_is_named_with_the_record_that_it_equals(tmp_path, model):
    words = [f"word{i}" for i in range(60)]
    nearly = {"prompt": "say", "completion": " ".join([*words, "more"])}
    rows = [{"prompt": "say", "completion": " ".join(words)}, nearly, {"prompt": "other", "completion": "x"}, nearly]
    store = prepare_store(data_of(tmp_path, write_prompts(tmp_path / "d.jsonl", rows), duplicates="remove_near"), model)
    lines = [json.loads(line) for line in (store.path / REJECTED).read_text(encoding="utf-8").splitlines()]
    reasons = [(line["line"], line["reason"].replace(f"{tmp_path / 'd.jsonl'}:", "")) for line in lines]
    assert reasons == [(4, "duplicate of 2"), (2, "near duplicate of 1")]
    assert store.duplicates[:, 0].tolist() == [0, 0]  # the one that is kept stands for both
    assert store.record_ids.tolist() == [0, 2]
    assert left_behind(tmp_path) == []


def test_a_lower_limit_of_bad_records_holds_for_a_store_that_is_there(tmp_path, model):
    source = write_prompts(tmp_path / "data.jsonl", [GOOD, KINDS["empty"]])
    rules = {"bad_records": "quarantine"}
    prepare_store(data_of(tmp_path, source, max_bad_share=0.5, **rules), model)
    with pytest.raises(UserError, match=r"1 of 2 \(50\.0%\)"):
        prepare_store(data_of(tmp_path, source, max_bad_share=0.1, **rules), model)


def test_a_cache_that_cannot_be_written_and_a_damaged_store_are_named(tmp_path, small_records, model):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"data\.cache_dir: the token store cannot be written"):
        prepare_store(small_data(tmp_path, small_records), model)
    (tmp_path / "cache").unlink()
    store = prepare_store(small_data(tmp_path, small_records), model)
    whole = (store.path / "tokens.npy").read_bytes()
    (store.path / "tokens.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged: .* Delete it"):
        prepare_store(small_data(tmp_path, small_records), model)


def test_blocks_do_not_change_the_store(tmp_path, small_records, model, monkeypatch):
    one = prepare_store(small_data(tmp_path / "one", small_records), model)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    other = prepare_store(small_data(tmp_path / "other", small_records), model)
    assert one.manifest == other.manifest


def test_a_store_is_found_again_and_not_made_again(tmp_path, small_records, model, monkeypatch):
    data = small_data(tmp_path, small_records)
    first = prepare_store(data, model)
    counts = count_tokenized(monkeypatch)
    again = prepare_store(data, model)
    assert counts == []
    assert again.path == first.path
    # Nor where only the place of the file, the cache, the held-out part or the model's precision are others.
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(small_records.instructions.read_bytes())
    sources = (data.sources[0].model_copy(update={"path": str(moved)}), data.sources[1])
    for same in (
        data.model_copy(update={"sources": sources}),
        data.model_copy(update={"cache_dir": tmp_path / "elsewhere"}),
        DataConfig.model_validate(data.model_dump() | {"holdout": {"share": 0.5, "tasks": ["sort"]}}),
    ):
        assert prepare_store(same, model.model_copy(update={"dtype": "float32"})).path.name == first.path.name


def test_the_fingerprint_changes_with_all_that_the_content_depends_on(tmp_path, small_records, tokenizer_dir):
    data = small_data(tmp_path, small_records)
    basic, lists = data.sources
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(small_records.prompts.read_bytes().replace(b"river", b"ocean", 1))
    models = [ModelConfig(path=str(tokenizer_dir(t))) for t in ("chatml", "default_system", "headers", None)]
    exchanged = {"prompt": "completion", "completion": "prompt"}
    variants = [
        (data, models[0]),
        *((data, model) for model in models[1:]),  # another template, or another end-of-text token
        (data, ModelConfig(path=models[2].path, chat_template="chatml")),
        *(
            (data.model_copy(update=update), models[0])
            for update in (
                {"max_len_tokens": 64},
                {"train_on": "last_assistant"},
                {"bad_records": "quarantine"},
                {"overlong": "error"},
                {"sources": (lists, basic)},
                {"sources": (basic,)},
                {"sources": (basic, lists.model_copy(update={"path": str(changed)}))},
                {"sources": (basic, lists.model_copy(update={"name": "other"}))},
                {"sources": (basic, lists.model_copy(update={"task": "other"}))},
                {
                    "sources": (
                        basic,
                        lists.model_copy(update={"columns": exchanged}),
                    )
                },
            )
        ),
    ]
    names = [prepare_store(variant, model).path.name for variant, model in variants]
    assert len(set(names)) == len(variants)


def prepare_in_process(rank, size, folder, data, model):
    """Runs in a process of its own, at the same time as the others."""
    dist.barrier()
    reports = []
    store = prepare_store(DataConfig.model_validate(data), ModelConfig.model_validate(model), reports.append)
    Path(folder, f"{rank}.json").write_text(json.dumps([len(reports), str(store.path), len(store)]))


def test_two_processes_that_want_the_same_store_both_get_it_and_one_makes_it(tmp_path, small_records, model):
    data = small_data(tmp_path, small_records).model_dump(mode="json", by_alias=True)
    arguments = (str(tmp_path), data, model.model_dump(mode="json"))
    assert zygote().start(prepare_in_process, 2, tmp_path / "log", *arguments) == [DONE] * 2, logs_of(tmp_path / "log")
    found = [tuple(json.loads((tmp_path / f"{rank}.json").read_text())) for rank in range(2)]
    assert sorted(num_reports for num_reports, _, _ in found) == [0, 2]
    (path,) = (p for p in (tmp_path / "cache" / "tokens").iterdir() if is_published(p))
    assert found[0][1:] == found[1][1:] == (str(path), 180)
    assert len(TokenStore.open(path)) == 180
    assert left_behind(tmp_path) == []


def test_the_record_of_a_source_is_named_by_its_place(small_records):
    source = SourceConfig(name="s", path=str(small_records.prompts), format="prompt_completion")
    first = next(read_records(source))
    assert isinstance(first, Record)
    assert str(first.where) == f"{small_records.prompts}:1"


def test_what_is_set_aside_of_the_collector_stays_so_behind_a_preparation():
    """As the modules of the tests are: else each preparation would have it look at all of them again."""
    aside = gc.get_freeze_count()
    thresholds = gc.get_threshold()
    with whole_blocks():
        assert gc.get_threshold() > thresholds
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() >= 0.9 * aside
