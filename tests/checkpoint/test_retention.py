"""What is kept is the newest and the milestones; what cannot be deleted costs space and no more."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.retention import Retention, checkpoints_to_delete, delete_stage_checkpoints
from tests.checkpoint.ranks import Rank, names, resumed_step, run_ranks, save_steps, state_of


@given(
    steps=st.lists(st.integers(1, 999), unique=True),
    keep_last=st.integers(1, 5),
    every=st.none() | st.integers(1, 50),
)
def test_the_newest_and_the_multiples_are_kept(steps: list[int], keep_last: int, every: int | None) -> None:
    deleted = checkpoints_to_delete(steps, Retention(keep_last, every))
    assert set(deleted) <= set(steps)
    newest = set(sorted(steps, reverse=True)[:keep_last])
    milestones = {step for step in steps if every is not None and step % every == 0}
    assert set(steps) - set(deleted) == newest | milestones
    assert deleted == sorted(deleted)
    kept = [step for step in steps if step not in deleted]
    assert checkpoints_to_delete(kept, Retention(keep_last, every)) == [], "there is nothing left to do"


@given(seen=st.permutations(range(1, 13)), keep_last=st.integers(1, 3))
def test_the_best_is_kept_however_old_it_is(seen: list[int], keep_last: int) -> None:
    """Step by step, as a run does it: step i has the value `seen[i - 1]`, and a lower one is better."""
    there: list[int] = []
    for step in range(1, len(seen) + 1):
        there.append(step)
        retention = Retention(keep_last, find_best=lambda steps: min(steps, key=lambda one: seen[one - 1]))
        for old in checkpoints_to_delete(there, retention):
            there.remove(old)
        best = min(range(1, step + 1), key=lambda one: seen[one - 1])
        assert {*there} == {best, *range(max(1, step - keep_last + 1), step + 1)}


def test_a_failing_deletion_is_reported_and_does_not_fail_the_save(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.deleted.partial").write_text("a file where the folder should be")
    reports = []

    def main(rank: Rank) -> None:
        (tmp_path / ".step-00000001.deleted.partial").touch()
        saver = rank.saver(LocalStorage(tmp_path), keep_last=1)
        for step in (1, 2):
            saver.save(step, state_of(step, rank.world), {})
        assert saver.finish()
        saver.close()
        reports.extend(rank.reports)

    run_ranks(1, main)
    (report,) = reports
    assert "step-00000001 could not be deleted" in report
    assert {"step-00000001", "step-00000002"} <= set(names(tmp_path))


def test_a_finished_stage_keeps_nothing_but_damaged_ones(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 2, 1, 2)
    (tmp_path / "step-00000002" / "manifest.json").unlink()
    assert resumed_step(LocalStorage(tmp_path), 2)[0] == 1
    delete_stage_checkpoints(LocalStorage(tmp_path), print)
    assert names(tmp_path) == ["damaged-step-00000002"]
