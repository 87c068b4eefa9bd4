"""Of a folder that is laid out like a data set on the Hub, the split and the subset that are asked for are read."""

import json
import os

import datasets
import fsspec
import pytest
from datasets.data_files import DataFilesDict, get_data_patterns
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sft.config import SourceConfig
from sft.data.reading.locations import find_files
from sft.data.reading.sources import read_records
from sft.data.reading.split_names import splits_in_path
from sft.errors import UserError


def source_of(path, **settings):
    return SourceConfig(name="here", path=str(path), **settings)


def write(root, *names):
    """Files with one record each, which is the file's own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name}) + "\n")


def read(path, **settings):
    return [record.fields["name"] for record in read_records(source_of(path, **settings))]


def refusal(path, **settings):
    with pytest.raises(UserError) as error:
        find_files(source_of(path, **settings))
    return str(error.value)


LAYOUTS = {
    "shards": ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"],
    "shards in data": ["data/train-00000-of-00001.jsonl", "data/test-00000-of-00001-ab12.jsonl"],
    "folders": ["train/a.jsonl", "train/b/c.jsonl", "test/a.jsonl", "dev/a.jsonl"],
    "names": ["train.jsonl", "test.jsonl", "validation.jsonl"],
    "keywords": ["gsm8k_training.jsonl.x.jsonl", "my-eval.jsonl", "val 2.jsonl"],
    "letters of another case": ["Train.jsonl", "TEST.jsonl"],
    "exported by the Hub": ["main/train/0000.jsonl", "main/test/0000.jsonl"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_with_splits_gives_the_one_that_is_asked_for(tmp_path, layout):
    names = sorted(LAYOUTS[layout])
    write(tmp_path, *names)
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}')
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A data set\n")
    of_train = [name for name in names if "train" in name.lower()]
    of_test = [name for name in names if "test" in name.lower() or "eval" in name]
    assert read(tmp_path) == read(tmp_path, split="train") == of_train
    assert read(tmp_path, split="test") == of_test
    assert read(tmp_path, split="all") == names
    assert "there is no split dev; there are " in refusal(tmp_path, split="dev")
    # A path that names its files is taken at its word, but not by chance.
    assert read(tmp_path / of_test[0]) == read(tmp_path / of_test[0], split="all")
    if not any("/" in name for name in names):
        assert read(tmp_path / "*.jsonl", split="train") == of_train
        assert read(tmp_path / "*.jsonl", split="all") == names
        assert "`split: all` for all files" in refusal(tmp_path / "*", split=None)


def test_a_folder_without_splits_is_read_whole_and_no_split_can_be_asked_of_it(tmp_path):
    names = ["a.jsonl", "contest.jsonl", "deep/latest.jsonl", "devil.jsonl", "trainer.jsonl"]
    write(tmp_path, *names)
    assert read(tmp_path) == read(tmp_path, split="all") == names
    for path in (tmp_path, tmp_path / "a.jsonl", tmp_path / "*.jsonl"):
        for split in ("train", "test"):
            assert f"split: {split} is given, but no name there shows a split. Remove it." in refusal(path, split=split)


def test_what_may_be_a_test_set_is_never_read_for_want_of_a_word(tmp_path):
    write(tmp_path / "mixed", "a.jsonl", "sql-test.jsonl")
    text = refusal(tmp_path / "mixed")
    assert "show a split (test: sql-test.jsonl), those of others do not (a.jsonl)" in text
    assert "Write `split: test`, or `split: all` for all files." in text
    assert read(tmp_path / "mixed", split="all") == read(tmp_path / "mixed" / "*") == ["a.jsonl", "sql-test.jsonl"]
    assert read(tmp_path / "mixed", split="test") == ["sql-test.jsonl"]
    write(tmp_path / "tests only", "test.jsonl", "val.jsonl")
    assert "there is no split train; there are test, validation" in refusal(tmp_path / "tests only")
    write(tmp_path / "heldout", "test.jsonl")
    assert "Write `split: test`" in refusal(tmp_path / "heldout")
    write(tmp_path / "named", "test/a.jsonl")
    assert read(tmp_path / "named" / "test") == ["test/a.jsonl"]
    write(tmp_path / "one", "data/part-00000-of-00001.jsonl")
    assert read(tmp_path / "one") == read(tmp_path / "one", split="part") == ["data/part-00000-of-00001.jsonl"]


def test_a_subset_is_a_folder_or_what_the_readme_names(tmp_path):
    names = [f"{subset}/{split}-00000-of-00001.jsonl" for subset in ("main", "socratic") for split in ("test", "train")]
    write(tmp_path, *names)
    assert read(tmp_path, subset="main") == ["main/train-00000-of-00001.jsonl"]
    assert read(tmp_path, subset="socratic", split="test") == ["socratic/test-00000-of-00001.jsonl"]
    assert "there is no subset other: there are main, socratic" in refusal(tmp_path, subset="other")
    assert "only folders and data sets on the Hub have subsets" in refusal(tmp_path / names[0], subset="main")
    assert "only folders and data sets on the Hub have subsets" in refusal(tmp_path / "*" / "*", subset="main")


README = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: [main/test-*, "more/**/t.jsonl"]
- config_name: raw
  data_files: "*.jsonl"
- config_name: old
  data_dir: ./old
- config_name: split
  data_dir: old
  data_files: {split: held, path: x.jsonl}
---
# Data
"""


def test_the_readme_goes_first(tmp_path):
    names = ["main/train-0.jsonl", "main/test-0.jsonl", "more/a/b/t.jsonl", "a.jsonl", "test.jsonl", "old/x.jsonl"]
    write(tmp_path, *names)
    card = tmp_path / "README.md"
    card.write_text(README.replace("{split: held, path: x.jsonl}", "[{split: held, path: x.jsonl}]"))
    assert read(tmp_path, subset="main") == ["main/train-0.jsonl"]
    assert read(tmp_path, subset="main", split="test") == ["main/test-0.jsonl", "more/a/b/t.jsonl"]
    assert read(tmp_path, subset="raw") == ["a.jsonl", "test.jsonl"]
    assert read(tmp_path, subset="old") == read(tmp_path, subset="split", split="held") == ["old/x.jsonl"]
    assert "its README names the subsets main, raw, old, split. Write one of them as `subset`" in refusal(tmp_path)
    assert "there is no subset more: its README names main, raw" in refusal(tmp_path, subset="more")
    assert "there is no split dev; there are train, test" in refusal(tmp_path, subset="main", split="dev")
    card.write_text(README.replace("- config_name: raw", "- default: true\n  config_name: raw"))
    assert read(tmp_path) == ["a.jsonl", "test.jsonl"]
    (tmp_path / "main" / "train-0.jsonl").unlink()
    assert "no file of records is there for the split train of its README (main/train-*)" in refusal(
        tmp_path, subset="main", split="test"
    )
    # A README that names no subsets says nothing of files.
    card.write_text("---\n{broken\n---\nconfigs: none")
    assert read(tmp_path / "old") == ["old/x.jsonl"]
    assert read(tmp_path, split="all")


@pytest.mark.parametrize(
    "configs",
    [
        "configs: 3",
        "configs: [a]",
        "configs: {a",
        "configs: 'a",
        "configs: [{data_files: a}]",
        "configs: [{config_name: a, data_files: [{split: a}]}]",
        "configs: [{config_name: a, data_files: https://h/x.jsonl}]",
        "configs: [{config_name: a, data_files: [[[a]]]}]",
        "configs: [{config_name: a, data_files: [{split: {}, path: x}]}]",
        "configs: [{config_name: a, data_files: absent.jsonl}]",
    ],
)
def test_a_readme_that_cannot_be_understood_is_the_users_to_mend(tmp_path, configs):
    write(tmp_path, "a.jsonl")
    (tmp_path / "README.md").write_text(f"---\n{configs}\n---\n")
    text = refusal(tmp_path)
    assert "README.md cannot be understood" in text or "of its README" in text


def test_folders_of_save_to_disk_are_read_by_their_splits(tmp_path):
    rows = {split: datasets.Dataset.from_dict({"name": [split, split]}) for split in ("fit", "test")}
    datasets.disable_progress_bars()
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "dict")
    # What `map` leaves beside the files that it was given.
    (tmp_path / "dict" / "fit" / "cache-12ab.arrow").write_bytes(b"not records")
    assert read(tmp_path / "dict", split="fit") == ["fit", "fit"]
    assert read(tmp_path / "dict", split="test") == ["test", "test"]
    assert read(tmp_path / "dict", split="all") == ["fit", "fit", "test", "test"]
    assert "there is no split train; there are fit, test" in refusal(tmp_path / "dict")
    assert read(tmp_path / "dict" / "fit") == read(tmp_path / "dict" / "test") * 0 + ["fit", "fit"]
    assert read(tmp_path, subset="dict", split="test") == ["test", "test"]
    (tmp_path / "dict" / "test" / "data-00000-of-00001.arrow").unlink()
    assert "test/state.json lists data-00000-of-00001.arrow, which is not there" in refusal(
        tmp_path / "dict", split="fit"
    )
    (tmp_path / "dict" / "test" / "state.json").write_text("{")
    assert "test/state.json is damaged" in refusal(tmp_path / "dict", split="fit")


def test_a_saved_data_set_knows_its_own_split(tmp_path):
    saved = datasets.Dataset.from_dict({"name": ["x"]}, split="train")
    saved.save_to_disk(tmp_path / "data")
    assert read(tmp_path / "data") == read(tmp_path / "data", split="train") == ["x"]
    assert "there is no split test" in refusal(tmp_path / "data", split="test")
    datasets.Dataset.from_dict({"name": ["y"]}).save_to_disk(tmp_path / "plain")
    assert read(tmp_path / "plain") == ["y"]
    state = json.loads((tmp_path / "data" / "state.json").read_text())
    state["_indices_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "data" / "state.json").write_text(json.dumps(state))
    assert "picks some rows" in refusal(tmp_path / "data")


def test_elsewhere_the_layout_is_the_same(tmp_path):
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    for name in ("data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl", "dataset_infos.json"):
        filesystem.pipe_file(f"/hub/{name}", json.dumps({"name": name}).encode() + b"\n")
    try:
        assert read("memory://hub") == ["data/train-00000-of-00001.jsonl"]
        assert read("memory://hub", split="test") == ["data/test-00000-of-00001.jsonl"]
        assert "shows a split" not in refusal("memory://hub", split="dev")
        assert "revision: v1 is given, but only the Hub has revisions" in refusal("memory://hub", revision="v1")
    finally:
        filesystem.store.clear()
        filesystem.pseudo_dirs[:] = [""]


def test_a_revision_of_what_lies_here_is_refused(tmp_path):
    write(tmp_path, "a.jsonl")
    for path in (tmp_path, tmp_path / "a.jsonl", tmp_path / "*"):
        assert "revision: main is given, but only the Hub has revisions. Remove it." in refusal(path, revision="main")


PARTS = st.sampled_from(["train", "test", "dev", "val", "valid", "evaluation", "testing", "a", "contest", "x1", "data"])
SEPARATED = st.lists(PARTS, min_size=1, max_size=2).flatmap(
    lambda parts: st.sampled_from("-_ .3").map(lambda sep: sep.join(parts))
)
PATHS = st.lists(SEPARATED, min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".jsonl")
SHARDS = st.tuples(PARTS, st.integers(0, 1)).map(lambda shard: f"data/{shard[0]}-0000{shard[1]}-of-00002.jsonl")


@settings(max_examples=60, deadline=None)
@given(st.lists(PATHS | SHARDS, min_size=1, max_size=4, unique=True))
def test_a_split_holds_the_files_that_datasets_gives_it(tmp_path_factory, names):
    """Where all files name a split in the same way; else `datasets` leaves files out, and here it is asked."""
    root = tmp_path_factory.mktemp("d") / "x"
    write(root, *names)
    found = {name: splits_in_path(name) for name in names}
    assume(all(len(splits) == 1 for splits in found.values()))
    is_shard = {name.startswith("data/") and "-of-" in name for name in names}
    in_folder = {len(splits_in_path(name.rpartition("/")[0] + "/-")) > 0 for name in names}
    assume(len(is_shard) == 1 and (is_shard == {True} or len(in_folder) == 1))
    patterns = get_data_patterns(str(root))
    expected = {
        os.path.relpath(path, root): str(split)
        for split, files in DataFilesDict.from_patterns(patterns, base_path=str(root)).items()
        for path in files
    }
    assert {name: splits[0] for name, splits in found.items()} == expected
