"""A process that speaks to Ray dies before it has said a word: it is started again, as often as that is worth it."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from io import StringIO
from pathlib import Path

import psutil
import pytest
import yaml

from launcher.cluster.block_executor import prepare_on_cluster
from launcher.cluster.trainer_process import TrainerProcess, TrainerRequest
from launcher.console import FitConsole
from launcher.supervision import supervise
from sft.atomic_files import write_json
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.block_preparer import BlockPreparer
from sft.data.reading.blocks import Block
from sft.data.reading.sources import read_blocks
from sft.errors import UserError
from sft.job_config import load_job
from sft.run_folder import RunFolder
from sft.training.prepared import Workload
from tests.conftest import SmallRecords

SPEAKERS = {"launcher.cluster.trainer", "launcher.cluster.block_process"}


@pytest.fixture
def request_to_train(tmp_path: Path) -> TrainerRequest:
    """Of a job that never comes so far that its data is read."""
    content = {
        "run": {"name": "lost", "dir": str(tmp_path / "run")},
        "model": {"path": "some/model"},
        "data": {"sources": [{"name": "words", "path": "words.jsonl", "format": "instruction"}]},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "cluster": {"max_failures": 1},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "run").mkdir()
    return TrainerRequest(load_job(path), Workload(tmp_path / "store", None, ()), 1, trains=True)


@pytest.fixture
def request_to_prepare(tiny_model_dir: Path, small_records: SmallRecords) -> tuple[BlockPreparer, Block]:
    source = SourceConfig(name="words", path=str(small_records.instructions), format="instruction")
    model = ModelConfig(path=str(tiny_model_dir))
    return BlockPreparer(DataConfig(sources=(source,)), model), next(read_blocks(source))


@pytest.fixture
def killer() -> Iterator[list[int]]:
    """Kills each such process as soon as it is seen; yields their ids."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.05):
            for child in psutil.Process().children():
                if child.pid not in killed and SPEAKERS.intersection(child.cmdline()):
                    killed.append(child.pid)
                    child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    ended.set()
    thread.join()


def test_it_is_started_again_so_often_and_then_it_is_said_why_not(
    request_to_train: TrainerRequest, killer: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = StringIO()
    outcome = supervise(request_to_train, "2 CPU workers", FitConsole(file=told, width=500))
    assert len(killer) == 2
    assert outcome.kind == "gave up"
    assert outcome.text.startswith("Ray was lost 2 times in a row before a worker had begun (cluster.max_failures: 1)")
    assert "the process that speaks to Ray was killed by signal 9" in outcome.text
    assert str(RunFolder(request_to_train.job.sft.run.dir).ray_log) in outcome.text
    assert told.getvalue().count("the training goes on at its checkpoint") == 1, "it is not said the last time"


def test_a_cluster_that_was_never_there_is_the_users_to_put_right(
    request_to_train: TrainerRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said by a process that was started early, or by another where that one has died."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    others = set(psutil.Process().children())
    with ExitStack() as held:
        dead = held.enter_context(closing(TrainerProcess()))
        [died] = set(psutil.Process().children()) - others
        died.kill()
        died.wait()
        early = held.enter_context(closing(TrainerProcess()))
        [used] = set(psutil.Process().children()) - others
        for start in (early, dead):
            with pytest.raises(UserError, match="nothing answers there"):
                supervise(request_to_train, "2 CPU workers", FitConsole(file=StringIO()), start)
        assert not used.is_running()
        assert not early.is_alive()
    assert set(psutil.Process().children()) <= others


def test_where_only_sample_answers_are_left_nothing_is_trained_again_and_that_is_said(
    request_to_train: TrainerRequest, killer: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_json(RunFolder(request_to_train.job.sft.run.dir).stage(0, "only").complete, {})
    told = StringIO()
    outcome = supervise(request_to_train, "2 CPU workers", FitConsole(file=told, width=500))
    assert outcome.text.startswith("Ray was lost 2 times in a row before the sample answers were written (cluster.max_")
    assert "the sample answers are written anew" in told.getvalue()
    assert len(killer) == 2


def test_a_process_that_has_got_the_number_of_a_rank_of_an_earlier_start_is_left_alone(
    request_to_train: TrainerRequest, killer: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = RunFolder(request_to_train.job.sft.run.dir)
    with subprocess.Popen(["ray::of another job", "100"], executable=shutil.which("sleep")) as other:
        write_json(run.attempt(1).rank(0), {"pid": other.pid, "node": socket.gethostname()})
        begun_later = request_to_train._replace(first_attempt=2)
        assert supervise(begun_later, "2 CPU workers", FitConsole(file=StringIO())).kind == "gave up"
        assert other.poll() is None
        other.kill()
    assert killer


def test_so_is_the_one_that_has_data_prepared(
    request_to_prepare: tuple[BlockPreparer, Block],
    killer: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    preparer, block = request_to_prepare
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"Ray was lost 4 times in a row .* was killed by signal 9\. The same command"):
        list(prepare_on_cluster(preparer, iter([block])))
    assert len(killer) == 4
    assert capfd.readouterr().err.count("the preparation goes on as soon as the cluster answers") == 3
