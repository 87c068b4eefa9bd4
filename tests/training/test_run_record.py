"""What may be changed when a run is resumed, and what makes it another run."""

from pathlib import Path
from typing import Any

import pytest

from sft.config import CheckpointConfig, SftConfig
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.training.run_record import anchor_paths, check_run, write_run_record


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A run that has trained."""
    content: dict[str, Any] = {
        "run": {"name": "old", "dir": str(tmp_path / "run")},
        "model": {"path": "a/model"},
        "data": {"sources": [{"name": "words", "path": "a/data"}]},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "train": {},
        "checkpoint": {"dir": "s3://bucket/run"},
    }
    config = SftConfig.model_validate(content)
    write_run_record(config)
    metrics = RunFolder(config.run.dir).stage(0, "only").metrics
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    return content


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "non_finite", "skip"),
        ("train", "max_skipped_steps", 3),
        ("train", "micro_packs", 2),
        ("checkpoint", "every_steps", 7),
        ("checkpoint", "keep_stage_ends", False),
        ("checkpoint", "async", False),
        ("run", "name", "new"),
    ],
)
def test_how_a_run_is_done_may_change(content: dict[str, Any], section: str, key: str, value: Any) -> None:
    content[section][key] = value
    check_run(SftConfig.model_validate(content))


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("checkpoint", "dir", "s3://bucket/other", "checkpoint.dir: was 's3://bucket/run', now 's3://bucket/other'"),
        ("checkpoint", "dir", None, "checkpoint.dir: was 's3://bucket/run', now None"),
        ("train", "packs_per_step", 7, "train.packs_per_step: was 32, now 7"),
        ("run", "seed", 3, "run.seed: was 17, now 3"),
    ],
)
def test_what_a_run_computes_and_where_its_checkpoints_are_may_not(
    content: dict[str, Any], section: str, key: str, value: Any, said: str
) -> None:
    content[section][key] = value
    with pytest.raises(UserError, match="holds a run with another config") as error:
        check_run(SftConfig.model_validate(content))
    assert said in str(error.value)


def test_every_field_of_checkpoint_but_its_place_is_free(content: dict[str, Any]) -> None:
    others = {"async": False, "keep_stage_ends": False}
    for name, field in CheckpointConfig.model_fields.items():
        key = field.alias or name
        if key != "dir":
            content["checkpoint"][key] = others.get(key, 5)
    check_run(SftConfig.model_validate(content))


def test_no_secret_of_a_url_is_written_down(content: dict[str, Any]) -> None:
    content["checkpoint"]["dir"] = "https://user:swordfish@host/run?token=sesame"
    config = SftConfig.model_validate(content)
    write_run_record(config)
    text = RunFolder(config.run.dir).config.read_text()
    assert "host/run" in text
    assert "swordfish" not in text
    assert "sesame" not in text


def test_a_relative_place_of_checkpoints_is_made_absolute(
    content: dict[str, Any], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, wanted in (("saved", str(tmp_path / "saved")), ("s3://bucket/x", "s3://bucket/x"), (None, None)):
        content["checkpoint"]["dir"] = given
        assert anchor_paths(SftConfig.model_validate(content)).checkpoint.dir == wanted
