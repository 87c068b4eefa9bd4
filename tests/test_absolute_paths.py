"""Which file a path of the config means, and which of them may be ids of the Hub."""

from pathlib import Path
from typing import Any, get_args

import pytest
from huggingface_hub import constants

from sft.absolute_paths import absolute_paths, may_be_hub_id
from sft.config import SftConfig
from sft.config_names import alternatives, is_section
from sft.config_paths import named_paths, path_mark
from sft.config_rules import RULES, homes_are_known
from sft.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a model and a file of records in it."""
    folder = tmp_path / "here"
    (folder / "models" / "qwen2").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def config(path: str = "owner/model", source: str = "owner/data", **changes: dict[str, Any]) -> SftConfig:
    content: dict[str, Any] = {
        "run": {"name": "a", "dir": "runs/a"},
        "model": {"path": path},
        "data": {"sources": [{"name": "one", "path": source}]},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
    }
    for section, fields in changes.items():
        content[section] = content.get(section, {}) | fields
    return SftConfig.model_validate(content)


def test_every_local_path_becomes_one_from_the_root_with_home_and_variables_as_they_are_here(
    here: Path, tmp_path: Path
) -> None:
    found = absolute_paths(
        config(
            "models/qwen2",
            "data/*.jsonl",
            model={"tokenizer": "~/tokenizer", "chat_template": "chat.jinja"},
            data={"cache_dir": "${SCRATCH}/sft"},
            checkpoint={"dir": "$SCRATCH/saved"},
            logging={"mlflow": {"tracking_uri": "file:~/mlruns"}},
        )
    )
    assert found.run.dir == here / "runs" / "a"
    assert found.model.path == str(here / "models" / "qwen2")
    assert found.model.tokenizer == str(tmp_path / "home" / "tokenizer")
    assert found.model.chat_template == str(here / "chat.jinja")
    assert found.data.sources[0].path == str(here / "data" / "*.jsonl")
    assert found.data.cache_dir == tmp_path / "scratch" / "sft"
    assert found.checkpoint.dir == str(tmp_path / "scratch" / "saved")
    assert found.logging.mlflow is not None
    assert found.logging.mlflow.tracking_uri == str(tmp_path / "home" / "mlruns")
    assert absolute_paths(found) == found


def test_a_field_that_names_a_path_is_marked_and_its_home_folder_looked_at() -> None:
    marked = {named.field for named in named_paths(config(model={"tokenizer": "t", "chat_template": "c"}))}
    assert marked == {
        *("run.dir", "model.path", "model.tokenizer", "model.chat_template"),
        *("data.sources.one.path", "data.cache_dir"),
    }
    (looked_at,) = (sections for rule, sections in RULES if rule is homes_are_known)

    def has_path(kind: Any) -> bool:
        parts = [part for part in alternatives(kind) for part in (part, *get_args(part)) if is_section(part)]
        return any(path_mark(f) or has_path(f.annotation) for part in parts for f in part.model_fields.values())

    assert {name for name, field in SftConfig.model_fields.items() if has_path(field.annotation)} == set(looked_at)


def test_what_is_no_local_path_stays_as_it_is() -> None:
    given = config("gpt2", "openai/gsm8k", model={"tokenizer": "Qwen/Qwen2.5-0.5B", "chat_template": "chatml"})
    found = absolute_paths(given)
    assert (found.model, found.data.sources) == (given.model, given.data.sources)
    assert found.checkpoint.dir is None
    for url in ("s3://bucket/a.jsonl", "https://host/a b.jsonl"):
        assert absolute_paths(config(source=url)).data.sources[0].path == url


@pytest.mark.parametrize("path", ["./modle", "models/a/b", "../models", "/models/qwen", "~/qwen", "models/"])
def test_what_cannot_be_an_id_is_a_path_whether_it_is_there_or_not(path: str) -> None:
    assert not may_be_hub_id(path, "model")
    assert Path(absolute_paths(config(path)).model.path).is_absolute()


def test_a_file_of_records_is_no_id_even_where_nothing_of_that_name_is_there(here: Path) -> None:
    for path in ("data/trian.jsonl", "elsewhere/train.json.gz", "train.CSV"):
        assert not may_be_hub_id(path, "dataset")
        assert absolute_paths(config(source=path)).data.sources[0].path == str(here / path)


def test_a_slip_in_a_path_is_said_with_all_others_and_the_hub_is_not_asked(here: Path) -> None:
    assert not may_be_hub_id("models/qwen", "model")
    with pytest.raises(UserError) as caught:
        absolute_paths(config("models/qwen", "data/train", run={"dir": "$NO_SUCH_VARIABLE/a"}))
    assert str(caught.value).splitlines() == [
        "run.dir: $NO_SUCH_VARIABLE/a: $NO_SUCH_VARIABLE is not set here. Set it, or write the path out.",
        f"model.path: there is no {here}/models/qwen; near it: qwen2. As {here}/models is a folder, the Hub is not "
        "asked. If you mean models/qwen on the Hub, fetch it: hf download models/qwen",
        f"data.sources.one.path: there is no {here}/data/train; near it: train.jsonl. As {here}/data is a folder, the "
        "Hub is not asked. If you mean data/train on the Hub, fetch it: hf download data/train --repo-type dataset",
    ]


def test_an_id_that_the_cache_of_the_hub_knows_is_one_beside_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "hub" / "models--models--qwen").mkdir(parents=True)
    assert may_be_hub_id("models/qwen", "model")
    assert absolute_paths(config("models/qwen")).model.path == "models/qwen"
