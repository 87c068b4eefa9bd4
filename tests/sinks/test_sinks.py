"""The real TensorBoard, Weights & Biases and MLflow, each in its process, through a restart: what they then hold."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.sinks.processes import sinks_fed
from tests.sinks.runs import begin_attempt, end_attempt, evaluate, planned_run, train

SECRETS = ("hunter22", "T000/B000/XXXX")


class Sent(NamedTuple):
    """A run that was stopped by a kill after step 5 of its first stage, went on at step 4, and was finished."""

    run: RunFolder
    mlflow: Path


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    folder = tmp_path_factory.mktemp("sinks")
    logging = {
        "wandb": {"project": "tuning", "tags": ["small"]},
        "mlflow": {"tracking_uri": f"file://{folder}/mlruns", "experiment": "tuning"},
    }
    alerts = {"url": "https://hooks.slack.com/services/T000/B000/XXXX"}
    config, run = planned_run(folder / "run", logging=logging, alerts=alerts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        begin_attempt(run, 1)
        with sinks_fed(config, first_attempt=1, end_seconds=120):
            evaluate(run, "base", 4.0)
            train(run, "broad", range(5))
        begin_attempt(run, 2)
        train(run, "broad", range(3, 6), attempt=2, loss=1.0)
        evaluate(run, "0-broad", 3.0, at=1.7e9 + 210)
        with sinks_fed(config, first_attempt=2, end_seconds=120):
            train(run, "words", range(4), attempt=2, loss=1.5)
            end_attempt(run, 2, "done")
    return Sent(run, folder / "mlruns")


FIRST_SENT = {1: 2.0, 2: 1.9, 3: 1.8, 4: 1.7, 5: 1.6, 6: 0.5, 7: 1.5, 8: 1.4, 9: 1.3, 10: 1.2}
LAST_TRAINED = {**FIRST_SENT, 4: 0.7, 5: 0.6}


def test_no_sink_was_switched_off(sent: Sent) -> None:
    assert [event.text for number in (1, 2) for event in read_events(sent.run.attempt(number))] == []


def test_tensorboard_has_each_step_once_as_it_was_trained_last(sent: Sent) -> None:
    found: dict[int, float] = {}
    for stage in ("broad", "words"):
        board = EventAccumulator(str(sent.run.tensorboard / stage))
        board.Reload()
        scalars = board.Scalars("train/loss")
        assert len(scalars) == len({scalar.step for scalar in scalars})
        found |= {scalar.step: scalar.value for scalar in scalars}
        if stage == "broad":
            assert [(e.step, round(e.value, 6)) for e in board.Scalars("eval/qa/loss")] == [(0, 4.0), (6, 3.0)]
    assert found == pytest.approx(LAST_TRAINED)


def test_mlflow_has_one_run_with_each_step_once_the_evaluations_and_the_config(sent: Sent) -> None:
    (about,) = sent.mlflow.glob("*/*/meta.yaml")
    meta = yaml.safe_load(about.read_text())
    assert (meta["run_name"], meta["status"]) == ("tuned", 3), "3: finished"
    metrics = about.parent / "metrics"

    def history(name: str) -> dict[int, float]:
        rows = [line.split() for line in (metrics / name).read_text().splitlines()]
        assert len(rows) == len({row[2] for row in rows})
        return {int(step): float(value) for _, value, step in rows}

    assert history("train/loss") == pytest.approx(FIRST_SENT)
    assert history("eval/qa/loss") == {0: 4.0, 6: 3.0}
    (awkward,) = [path for path in metrics.glob("*") if path.is_file()]
    assert history(awkward.name) == {0: 5.0, 6: 4.0}
    assert (about.parent / "params" / "stages.broad.budget.steps").read_text() == "6"


def wandb_records(run: RunFolder) -> Iterator[Any]:
    """Of the offline files, in the order in which they were begun."""
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415  (most of a second, which each process of tests would take)

    for path in sorted(run.sinks.glob("wandb/offline-run-*/*.wandb")):
        for content in leveldb_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            yield record


def leveldb_records(log: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, behind W&B's own seven bytes: blocks of 32 KiB, in which a record lies whole
    (type 1) or in parts (2, 3, 4), each with its checksum, length and type before it."""
    at, record = 7, b""
    while at < len(log):
        if -at % 32768 < 7:
            at += -at % 32768
            continue
        size, kind = struct.unpack_from("<HB", log, at + 4)
        record += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield record
            record = b""


def test_wandb_has_one_run_with_each_step_once_and_the_evaluations(sent: Sent) -> None:
    rows, runs = [], set()
    for record in wandb_records(sent.run):
        if record.HasField("history"):
            items = record.history.item
            rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
        if record.HasField("run"):
            runs.add((record.run.run_id, record.run.project, record.run.display_name))
    (about,) = runs
    assert about[1:] == ("tuning", "tuned")
    steps = {row["global_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert steps == pytest.approx(FIRST_SENT)
    assert sum("train/loss" in row for row in rows) == len(FIRST_SENT)
    assert {row["global_step"]: row["eval/qa/loss"] for row in rows if "eval/qa/loss" in row} == {0: 4.0, 6: 3.0}
    assert {row["stage"] for row in rows} == {"broad", "words"}


def test_what_is_sent_holds_no_secret(sent: Sent) -> None:
    files = [path for path in sent.run.path.parent.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any("params" in path.parts for path in files)
    found = [path for path in files for secret in SECRETS if secret.encode() in path.read_bytes()]
    assert found == []
