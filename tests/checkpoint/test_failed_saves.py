"""A save that fails is tried again, told and counted; training goes on, until too many in a row have failed."""

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sft.checkpoint.local_storage import LocalStorage, published_steps
from sft.checkpoint.saver import CheckpointError, CheckpointSaver
from tests.checkpoint.ranks import Rank, names, resumed_step, run_ranks, state_of
from tests.forked_ranks import warm_command


def block(folder: Path, step: int, number: int) -> Path:
    """Put a file where the save's folder should be: root too cannot write into that."""
    path = folder / f".step-{step:08d}.attempt-0001-{number:04d}.partial"
    path.write_text("in the way")
    return path


def test_it_is_tried_again_and_each_failed_try_is_told(tmp_path: Path) -> None:
    blocked = block(tmp_path, 1, 1)

    def main(rank: Rank) -> None:
        def report(line: str) -> None:
            rank.reports.append(line)
            if len(rank.reports) == 2:
                blocked.unlink()

        rank.report = report
        saver = rank.saver(LocalStorage(tmp_path))
        saver.save(1, state_of(1, rank.world), {})
        assert saver.finish()
        saver.close()
        first, second = rank.reports
        assert "part of the checkpoint of step 1: try 1 of 3 failed with FileExistsError" in first
        assert "try 2 of 3" in second

    run_ranks(1, main)
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_training_goes_on_and_the_next_save_succeeds(tmp_path: Path, asynchronous: bool) -> None:
    def main(rank: Rank) -> list[str]:
        saver = rank.saver(LocalStorage(tmp_path), async_=asynchronous, max_failed_saves=2)
        for step in (1, 2, 3, 4):
            if step in (1, 3) and rank.world.is_first:
                block(tmp_path, step, step)
            rank.agree(True)
            saver.save(step, state_of(step, rank.world), {"num_updates": step - 1})
        assert saver.finish()
        saver.close()
        return rank.reports

    reports = run_ranks(3, main)
    assert published_steps(tmp_path) == [2, 4], "two have failed, but not in a row"
    for rank_reports in reports:
        told = [line for line in rank_reports if "was not saved" in line]
        assert [line.split(":")[0] for line in told] == [f"the checkpoint of step {n} was not saved" for n in (1, 3)]
        assert "failed saves in a row: 1, checkpoint.max_failed_saves: 2" in told[0]
    assert resumed_step(LocalStorage(tmp_path), 3)[0] == 4


def test_one_rank_alone_fails_and_all_know(tmp_path: Path) -> None:
    """The first rank has written its part, and does not wait for the one that will not come."""

    class FailsOnce(LocalStorage):
        """A disk that is full the first time, for one rank."""

        full = True

        def write_part(self, *arguments: object) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write_part(*arguments)

    def main(rank: Rank) -> None:
        storage = LocalStorage(tmp_path) if rank.world.is_first else FailsOnce(tmp_path)
        saver = rank.saver(storage)
        started = time.monotonic()
        saver.save(7, state_of(7, rank.world), {"num_updates": 6})
        assert not saver.finish()
        assert time.monotonic() - started < 10
        rank.agree(True)
        assert not published_steps(tmp_path)
        assert not list(tmp_path.glob(".step-*")), "what it has left is gone"
        rank.agree(True)
        FailsOnce.full = False
        saver.save(7, state_of(7, rank.world), {"num_updates": 6})
        assert saver.finish(), "the same step again"
        saver.close()
        reason = "another rank could not write" if rank.world.is_first else "No space left on device"
        assert reason in rank.reports[-1]

    run_ranks(2, main)
    assert resumed_step(LocalStorage(tmp_path), 2)[0] == 7


def test_what_a_failed_save_has_left_is_never_taken_for_the_next_ones(tmp_path: Path) -> None:
    """Receipts of the save before lie there still; the second save of the step waits for its own."""

    class LeavesAll(LocalStorage):
        def discard(self, key: object) -> None:
            raise OSError("busy")

    def main(rank: Rank) -> None:
        fails = [True]

        def fail_first() -> None:
            if fails:
                raise OSError("the ledger is full")

        saver = rank.saver(LeavesAll(tmp_path), before_publish=fail_first)
        saver.save(1, state_of(9, rank.world), {})
        assert not saver.finish()
        fails.clear()
        saver.save(1, state_of(1, rank.world), {"num_updates": 0})
        assert saver.finish()
        saver.close()
        if rank.world.is_first:
            assert "try 3 of 3 failed with OSError: the ledger is full" in rank.reports[2]
            assert "could not be removed: busy" in rank.reports[3]

    run_ranks(3, main)
    assert resumed_step(LocalStorage(tmp_path), 2)[0] == 1


@pytest.mark.parametrize("asynchronous", [True, False])
def test_too_many_in_a_row_end_it_on_all_ranks(tmp_path: Path, asynchronous: bool) -> None:
    folder = tmp_path / "checkpoints"
    folder.write_text("a file where the folder should be")

    def main(rank: Rank) -> str:
        saver = rank.saver(LocalStorage(folder), async_=asynchronous)

        def train() -> None:
            for step in range(1, 9):
                saver.save(step, state_of(step, rank.world), {})

        with pytest.raises(CheckpointError) as caught:
            train()
        saver.close()
        return str(caught.value)

    for text in run_ranks(3, main):
        assert "3 saves in a row have failed (checkpoint.max_failed_saves: 3)" in text
        for step in (1, 2, 3):
            assert f"step {step}: NotADirectoryError" in text or f"step {step}: FileExistsError" in text


def test_an_error_of_the_program_is_not_counted_but_raised(tmp_path: Path) -> None:
    def main(rank: Rank) -> None:
        saver = rank.saver(LocalStorage(tmp_path))
        saver.save(1, state_of(1, rank.world), {"not JSON": {1, 2}})
        with pytest.raises(TypeError):
            saver.finish()
        saver.close()

    run_ranks(1, main)


def test_closing_does_not_wait_for_a_rank_that_is_dead(tmp_path: Path) -> None:
    def main(rank: Rank) -> None:
        saver: CheckpointSaver = rank.saver(LocalStorage(tmp_path))
        if rank.world.is_first:
            saver.save(1, state_of(1, rank.world), {})
            with pytest.raises(threading.BrokenBarrierError):
                saver.finish()
        else:
            rank.leave()
        started = time.monotonic()
        saver.close()
        assert time.monotonic() - started < 10

    run_ranks(2, main)
    assert published_steps(tmp_path) == []


def test_after_an_error_a_save_under_way_is_published_as_long_as_it_goes_on(tmp_path: Path) -> None:
    all_have_saved = threading.Barrier(2)

    class Slow(LocalStorage):
        def write_part(self, *arguments: Any) -> None:
            all_have_saved.wait(30)
            for _ in range(10):
                threading.Event().wait(0.1)
                self.progress.tell()
            super().write_part(*arguments)

    def main(rank: Rank) -> None:
        saver = rank.saver((LocalStorage if rank.world.is_first else Slow)(tmp_path))
        saver.save(1, state_of(1, rank.world), {"num_updates": 0})
        if rank.world.is_first:
            all_have_saved.wait(30)
        saver.close()

    run_ranks(2, main)
    assert resumed_step(LocalStorage(tmp_path), 2)[0] == 1


def test_what_is_deleted_before_the_first_save_is_not_made_again(tmp_path: Path) -> None:
    stage = tmp_path / "stage"

    def main(rank: Rank) -> None:
        saver = rank.saver(LocalStorage(stage / "checkpoints"))
        rank.agree(True)
        if rank.world.is_first:
            shutil.rmtree(stage)
        rank.agree(True)
        saver.save(1, state_of(1, rank.world), {"num_updates": 0})
        assert not saver.finish()
        saver.close()
        assert "FileNotFoundError" in rank.reports[-1]

    run_ranks(2, main)
    assert not stage.exists()


FULL_DISK = """
import resource, sys
from pathlib import Path
from sft.checkpoint.local_storage import LocalStorage
from tests.checkpoint.ranks import run_ranks, state_of

def main(rank):
    saver = rank.saver(LocalStorage(Path(sys.argv[1])), max_failed_saves=2)
    for step in (1, 2, 3):
        if rank.world.is_first:
            # More than that a file cannot hold, as on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if step == 2 else -1, -1))
        rank.agree(True)
        saver.save(step, state_of(step, rank.world, 10_000), {"num_updates": step - 1})
        published = saver.finish()
        assert published == (step != 2), (step, rank.reports)
    saver.close()
    assert any("File too large" in line for line in rank.reports), rank.reports

run_ranks(2, main)
"""


def test_a_full_disk_costs_its_own_save_alone(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    script, folder = tmp_path / "fills.py", tmp_path / "checkpoints"
    script.write_text(FULL_DISK)
    folder.mkdir()
    subprocess.run(warm_command(str(script), str(folder)), cwd=root, check=True, timeout=120)
    assert names(folder) == ["step-00000001", "step-00000003"]
    assert resumed_step(LocalStorage(folder), 3, 10_000)[0] == 3
