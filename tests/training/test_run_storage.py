"""A run folder that is deleted, and a disk that is full, while ranks train: words, and nothing half-written."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sft.atomic_files import check_files
from sft.checkpoint.local_storage import LocalStorage, checkpoint_path, published_steps
from sft.config import SftConfig
from sft.errors import TrainingError
from sft.ledger import LedgerWriter, read_ledger
from sft.ranks.torch_ranks import TorchRanks
from sft.run_folder import RunFolder
from sft.training.attempt import begin_attempt
from sft.training.attempt_end import end_of_last_attempt
from sft.training.control_signals import ControlSignals
from sft.training.prepared import Workload
from sft.training.run_context import RunContext
from sft.training.run_storage import why_unusable
from sft.training.watched_run import Limits, run_watched
from sft.training.workload import prepare_workload
from sft.verification.run_check import verify_run
from sft.world import World
from tests.checkpoint.ranks import Rank, resumed_step, run_ranks, state_of
from tests.conftest import SmallRecords
from tests.forked_ranks import DONE, logs_of, zygote
from tests.jobs import two_stage_job

STOPPED_WITH_WORDS = 7
STEP = 3


def attempt(rank: int, size: int, content: dict[str, Any], workload: list[str | None], fault: str | None) -> int:
    """One attempt of a rank; the fault strikes the first one when it writes down a step."""
    config = SftConfig.model_validate(content)
    ranks = TorchRanks(World(rank, size, rank, local_size=size))
    run = RunFolder(config.run.dir)
    append = LedgerWriter.append

    def append_or_lose(ledger: LedgerWriter, entry: Any) -> None:
        if entry.step == STEP and fault == "delete":
            # All at once: a checkpoint is being written, and its renames would outrun the deletion.
            shutil.rmtree(run.path.rename(run.path.with_name("deleted")))
        if entry.step == STEP and fault == "fill":
            fill(run.path)
        append(ledger, entry)

    LedgerWriter.append = append_or_lose  # type: ignore[method-assign]
    try:
        begun = begin_attempt(run, ranks)
        end = run_watched(
            RunContext(config, Workload.from_json(workload), begun, ControlSignals(run.stop_file)), Limits(1, -1, 60)
        )
    except TrainingError as error:
        os.write(2, f"in words: {error}\n".encode())
        return STOPPED_WITH_WORDS
    return DONE if end == "done" else STOPPED_WITH_WORDS


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "hog").open("wb", buffering=0) as hog:
        while True:
            hog.write(bytes(4096))


class Job:
    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.run = RunFolder(Path(content["run"]["dir"]))
        self._workload = prepare_workload(SftConfig.model_validate(content))[0].as_json()
        self._num_starts = 0

    def start(self, size: int, logs: Path, fault: str | None = None) -> tuple[list[int], str]:
        self._num_starts += 1
        log = logs / f"start-{self._num_starts}"
        codes = zygote().start(attempt, size, log, self.content, self._workload, fault)
        return codes, logs_of(log)


@pytest.fixture
def content(tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path) -> dict[str, Any]:
    content = two_stage_job("run", tmp_path, tiny_model_dir, small_records, {"broad": 6, "words": 1})
    train = {**content["train"], "packs_per_step": 2}
    evaluate = {"max_examples_per_task": 4}
    checkpoint = {"every_steps": 2}
    return {
        **content,
        "stages": content["stages"][:1],
        "train": train,
        "checkpoint": checkpoint,
        "evaluate": evaluate,
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_run_folder_that_is_deleted_is_not_made_again(content: dict[str, Any], tmp_path: Path) -> None:
    job = Job(content)
    codes, said = job.start(1, tmp_path, "delete")
    assert codes == [STOPPED_WITH_WORDS], said
    assert not job.run.path.exists()
    # Where the ranks are started again, as by Ray.
    codes, said = job.start(2, tmp_path)
    assert codes == [STOPPED_WITH_WORDS] * 2, said
    assert f"in words: the run folder {job.run.path} is gone" in said
    assert "Traceback" not in said
    assert not job.run.path.exists()
    assert f"the run folder {job.run.path} is gone" in end_of_last_attempt(job.run).message


@pytest.mark.long
def test_a_full_disk_ends_the_run_in_words_and_with_room_it_goes_on(
    content: dict[str, Any], small_disk: Path, tmp_path: Path
) -> None:
    job = Job({**content, "run": {"name": "run", "dir": str(small_disk / "run")}})
    codes, said = job.start(2, tmp_path, "fill")
    assert codes[0] == STOPPED_WITH_WORDS, said
    codes, said = job.start(2, tmp_path)
    assert codes == [STOPPED_WITH_WORDS] * 2, said
    assert f"in words: the disk of the run folder {job.run.path} is full" in said
    assert "Traceback" not in said
    assert "is full" in end_of_last_attempt(job.run).message

    checkpoints = job.run.stage(0, "broad").checkpoints
    [last] = published_steps(checkpoints)[-1:]
    assert check_files(checkpoint_path(checkpoints, last)) == []
    (job.run.path / "hog").unlink()
    assert why_unusable(job.run) is None
    assert job.start(1, tmp_path)[0] == [DONE]
    assert not list(job.run.path.rglob("*.partial")), "nothing half-written is left"
    assert sorted(read_ledger(job.run.stage(0, "broad").ledger).effective) == list(range(6))
    assert not verify_run(job.run).findings


def test_a_disk_that_fills_up_during_a_save_costs_that_save_alone(small_disk: Path) -> None:
    storage, numel = LocalStorage(small_disk / "checkpoints"), 400_000

    def main(rank: Rank) -> None:
        saver = rank.saver(LocalStorage(small_disk / "checkpoints"), max_failed_saves=2)
        for step in (1, 2, 3):
            if rank.world.is_first and step == 2:
                # Room for a part of one rank's file.
                (small_disk / "hog").write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_000_000))
            if rank.world.is_first and step == 3:
                (small_disk / "hog").unlink()
            rank.agree(True)
            saver.save(step, state_of(step, rank.world, numel), {"num_updates": step - 1})
            assert saver.finish() == (step != 2)
            if step == 2:
                rank.agree(True)
                assert published_steps(small_disk / "checkpoints") == [1]
                assert [path.name for path in (small_disk / "checkpoints").iterdir()] == ["step-00000001"]
                assert any("No space left on device" in line for line in rank.reports)
                rank.agree(True)
        saver.close()

    run_ranks(2, main)
    assert storage.steps() == [1, 3]
    assert resumed_step(storage, 3, numel)[0] == 3
