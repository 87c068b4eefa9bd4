"""What may be changed when a run is resumed, and what makes it another run."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel

from sft.absolute_paths import absolute_paths
from sft.config import CheckpointConfig, SftConfig
from sft.config_effects import Affects, AffectsNothing, completed
from sft.config_section import Section
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.training.run_record import check_run, write_run_record

NUM_PARTS = 8
"""Of the fields: reading the record takes longer than all else."""


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
        ("train", "packs_per_micro_batch", 2),
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


def recorded(content: dict[str, Any]) -> dict[str, Any]:
    path = RunFolder(Path(content["run"]["dir"])).config
    return dict(yaml.safe_load(path.read_text()))


def fields_of(section: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each field lies that has its default, sections included."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), field.alias or name
        if not field.is_required() and value == field.get_default():
            yield (*path, key)
        if isinstance(value, BaseModel):
            yield from fields_of(value, (*path, key))
        for i, item in enumerate(value if isinstance(value, tuple) else ()):
            if isinstance(item, BaseModel):
                yield from fields_of(item, (*path, key, i))


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_a_run_of_a_version_that_did_not_have_some_field_goes_on(content: dict[str, Any], part: int) -> None:
    """Each field in one part: without them the record is read as one with their defaults."""
    config = SftConfig.model_validate(content)
    run, whole = RunFolder(config.run.dir), recorded(content)
    fields = list(fields_of(config))
    assert len(fields) > 60
    old: Any = deepcopy(whole)
    for *parents, key in fields[part::NUM_PARTS][::-1]:  # what is inside another one comes first
        node = old
        for parent in parents:
            node = node[parent]
        del node[key]
    run.config.write_text(yaml.safe_dump(old))
    assert check_run(config) == whole


def test_what_the_record_lacks_counts_by_what_was_done_then(content: dict[str, Any]) -> None:
    """Not by what the config has now, nor by a default that is not how it was (`absent_at`)."""
    old = recorded(content)
    del old["model"]["dropout"]
    RunFolder(Path(content["run"]["dir"])).config.write_text(yaml.safe_dump(old))
    content["model"]["dropout"] = "as_configured"
    with pytest.raises(UserError, match="model.dropout: was 'none', now 'as_configured'"):
        check_run(SftConfig.model_validate(content))

    class Later(Section):
        mode: Annotated[str, Affects("numbers", absent_at="slow")] = "fast"
        kept: AffectsNothing[int] = 3

    assert completed(Later(), {"kept": 4}) == {"kept": 4, "mode": "slow"}


def test_the_model_of_another_run_may_lie_elsewhere_but_is_the_same(content: dict[str, Any]) -> None:
    start = {"run": "/old", "stage": "words", "step": 6, "model": "/old/model", "manifest_sha256": "0f"}
    content |= {"from": start, "model": {"path": "/old/model"}}
    write_run_record(SftConfig.model_validate(content))
    moved = "/new/model-step-00000006"
    content |= {"from": {**start, "run": "/new", "model": moved}, "model": {"path": moved}}
    check_run(SftConfig.model_validate(content))
    content["from"] |= {"manifest_sha256": "1e", "step": 8}
    with pytest.raises(UserError, match="another config") as error:
        check_run(SftConfig.model_validate(content))
    for line in ("from.step: was 6, now 8", "from.manifest_sha256: was '0f', now '1e'", "model.path: was '/old/model'"):
        assert line in str(error.value)


def test_a_field_of_another_version_is_named(content: dict[str, Any]) -> None:
    old = recorded(content)
    old["train"]["curvature"] = 7
    RunFolder(Path(content["run"]["dir"])).config.write_text(yaml.safe_dump(old))
    with pytest.raises(UserError, match="train.curvature: was 7, now None"):
        check_run(SftConfig.model_validate(content))


LATE = {"name": "late", "budget": {"steps": 2}, "optimizer": {"lr": 1e-4}}


def test_stages_behind_what_has_trained_are_free(content: dict[str, Any]) -> None:
    content["stages"].append(dict(LATE))
    check_run(SftConfig.model_validate(content))
    write_run_record(SftConfig.model_validate(content))
    content["stages"][1] = {"name": "another", "budget": {"epochs": 1}, "optimizer": {"lr": 1.0}}
    check_run(SftConfig.model_validate(content))
    del content["stages"][1]
    check_run(SftConfig.model_validate(content))


def test_more_budget_of_the_last_that_has_trained_may_come_with_a_learning_rate(content: dict[str, Any]) -> None:
    stage = content["stages"][0]
    stage["budget"] = {"epochs": 9}
    check_run(SftConfig.model_validate(content))
    stage["optimizer"] = {"lr": 5.0, "schedule": "linear", "warmup_ratio": 0.5, "min_lr_ratio": 0.1}
    check_run(SftConfig.model_validate(content))
    stage["optimizer"]["weight_decay"] = 0.5
    with pytest.raises(UserError, match=r"another config:\n  stages.only.optimizer.weight_decay: was 0.0, now 0.5\n"):
        check_run(SftConfig.model_validate(content))


def test_of_stages_that_have_trained_the_few_lines_that_differ_are_shown(content: dict[str, Any]) -> None:
    content["stages"] += [dict(LATE), {**LATE, "name": "later"}]
    write_run_record(SftConfig.model_validate(content))
    metrics = RunFolder(Path(content["run"]["dir"])).stage(1, "late").metrics
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    changed = deepcopy(content)
    changed["stages"][0]["budget"] = {"steps": 5}  # its model is what `late` began with
    changed["stages"][0]["mixture"] = {"tasks": ["words"]}
    changed["stages"][2]["optimizer"] = {"lr": 3.0}
    with pytest.raises(UserError, match="another config") as error:
        check_run(SftConfig.model_validate(changed))
    lines = str(error.value).splitlines()[1:-1]
    assert lines == ["  stages.only.mixture.tasks: was None, now ['words']", "  stages.only.budget.steps: was 1, now 5"]
    del changed["stages"][1]
    changed["stages"][0] = content["stages"][0]
    with pytest.raises(UserError, match=r"stages.1: was 'late, which has trained', now 'later'"):
        check_run(SftConfig.model_validate(changed))


def test_every_field_of_checkpoint_but_its_place_is_free(content: dict[str, Any]) -> None:
    others = {"async": False, "keep_stage_ends": False, "check_export": True, "best": {"score": "loss"}}
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


def test_a_relative_folder_of_mlflow_is_made_absolute(
    content: dict[str, Any], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, wanted in (
        ("mlruns", str(tmp_path / "mlruns")),
        ("file:./mlruns", str(tmp_path / "mlruns")),
        ("file:///shared/mlruns", "/shared/mlruns"),
        ("https://example.org", "https://example.org"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("databricks", "databricks"),
        (None, None),
    ):
        content["logging"] = {"mlflow": {"tracking_uri": given}}
        anchored = absolute_paths(SftConfig.model_validate(content)).logging.mlflow
        assert anchored is not None
        assert anchored.tracking_uri == wanted


def test_a_relative_place_of_checkpoints_is_made_absolute(
    content: dict[str, Any], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, wanted in (("saved", str(tmp_path / "saved")), ("s3://bucket/x", "s3://bucket/x"), (None, None)):
        content["checkpoint"]["dir"] = given
        assert absolute_paths(SftConfig.model_validate(content)).checkpoint.dir == wanted


@pytest.mark.parametrize("text", [None, "", "run: [", "a: 1", "run: {name: a}\nstages: 3", "stages: [1]", "3"])
def test_a_record_that_is_gone_or_damaged_is_said_and_nothing_else_is_taken_for_it(
    content: dict[str, Any], text: str | None
) -> None:
    config = SftConfig.model_validate(content)
    path = RunFolder(config.run.dir).config
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(UserError, match=str(path)):
        check_run(config)


def test_of_a_source_that_is_added_the_names_are_shown(content: dict[str, Any]) -> None:
    content["data"]["sources"].append({"name": "more", "path": "a/data"})
    with pytest.raises(UserError, match=r"data\.sources: was \['words'\], now \['words', 'more'\]"):
        check_run(SftConfig.model_validate(content))
