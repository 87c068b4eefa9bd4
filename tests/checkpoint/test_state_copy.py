"""A save holds the state as it was, however late the device copies it; the memory is the same in every save."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sft.checkpoint import saver as saver_module
from sft.checkpoint.local_storage import LocalStorage, checkpoint_path
from sft.checkpoint.rank_file import CheckpointReader
from sft.checkpoint.state_copy import StateCopier
from sft.engine.engine import Shard
from sft.engine.lion import Lion
from tests.checkpoint.ranks import Rank, run_ranks


class LateCopies:
    """`Copies` of a device that copies only when its other work would have to wait for it; of tensors on the CPU."""

    def __init__(self) -> None:
        self.queued: list[tuple[Tensor, Tensor]] = []
        self.sizes: list[int] = []
        self.num_held = 0
        self._done = threading.Event()
        self._done.set()

    def memory(self, num_bytes: int, report: Callable[[str], None]) -> Tensor:
        self.sizes.append(num_bytes)
        return torch.empty(num_bytes, dtype=torch.uint8)

    def begin(self) -> None:
        assert not self.queued, "the memory is still in use"
        self._done.clear()

    def queue(self, source: Tensor, target: Tensor) -> None:
        self.queued.append((source, target))

    def hold_device(self) -> None:
        self.num_held += 1
        self.run()

    def hold_host(self) -> None:
        assert self._done.wait(30)

    def close(self) -> None:
        assert not self.queued

    def run(self) -> None:
        for source, target in self.queued:
            target.copy_(source)
        self.queued.clear()
        self._done.set()


def trained(sizes: list[int]) -> tuple[torch.optim.Optimizer, dict[str, Shard]]:
    """An optimizer, and its state in place."""
    parameters = [torch.randn(size).requires_grad_() for size in sizes]
    optimizer = Lion(parameters, 0.1, (0.9, 0.99))
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    optimizer.step()
    state = {f"{i}/master": Shard(len(p), 0, p.detach()) for i, p in enumerate(parameters)}
    means = {f"{i}/exp_avg": Shard(len(p), 0, optimizer.state[p]["exp_avg"]) for i, p in enumerate(parameters)}
    return optimizer, {**state, **means}


def values(state: dict[str, Shard]) -> dict[str, list[float]]:
    return {name: shard.values.tolist() for name, shard in state.items()}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 4))
def test_each_copy_is_the_state_at_its_time_and_no_update_overtakes_it(sizes: list[int], num_saves: int) -> None:
    optimizer, state = trained(sizes)
    copies = LateCopies()
    copier = StateCopier(print, lambda device: copies)
    for _ in range(num_saves):
        expected = values(state)
        copied = copier.copy(state)
        optimizer.step()  # as late as the copies may be
        copied.wait()
        assert values(dict(copied.state)) == expected
        optimizer.step()
    copier.close()
    assert copies.num_held == num_saves, "an update waits only for copies that are under way"
    assert len(copies.sizes) == (1 if any(sizes) else 0), "every save has the same memory"
    needed = sum(shard.values.nbytes for shard in state.values())
    assert needed <= sum(copies.sizes) <= needed + 64 * len(state)
    optimizer.step()
    assert copies.num_held == num_saves, "nothing is left behind"


def test_without_a_gpu_the_state_is_copied_at_once_and_updates_wait_for_nothing() -> None:
    optimizer, state = trained([7, 0])
    copier = StateCopier(print, lambda device: None)
    copier.prepare(state)
    expected, copied = values(state), copier.copy(state)
    optimizer.step()
    copied.wait()
    assert values(dict(copied.state)) == expected
    assert (
        copier.copy(state, must_copy=False).state["0/master"].values.data_ptr() == state["0/master"].values.data_ptr()
    )
    copier.close()


def test_state_in_both_places_is_copied_from_each_as_it_must_be() -> None:
    """A part of the state may be offloaded."""
    copies = LateCopies()
    copier = StateCopier(print, lambda device: copies if device.type == "meta" else None)
    here, there = torch.arange(3.0), torch.empty(5, device="meta")
    copied = copier.copy({"here": Shard(3, 0, here), "there": Shard(5, 0, there)})
    here.zero_()
    assert copied.state["here"].values.tolist() == [0, 1, 2]
    [(source, target)] = copies.queued
    assert source.shape == target.shape == copied.state["there"].values.shape
    copies.queued.clear()
    copies.run()
    copier.close()


@pytest.mark.parametrize("is_async", [True, False])
def test_what_is_saved_is_what_was_there_at_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    copies = LateCopies()
    if not is_async:
        # A save that training waits for is over before the next update.
        monkeypatch.setattr(copies, "hold_host", copies.run)
    monkeypatch.setattr(saver_module, "cuda_copies", lambda device: copies)
    optimizer, state = trained([30, 5])

    def main(rank: Rank) -> list[dict[str, list[float]]]:
        expected = []
        saver = rank.saver(LocalStorage(tmp_path), **{"async": is_async})
        saver.prepare(lambda: state)
        for step in range(1, 4):
            expected.append(values(state))
            saver.save(step, state, {})
            optimizer.step()
        assert saver.finish()
        saver.close()
        return expected

    [expected] = run_ranks(1, main)
    for step, of_step in enumerate(expected, 1):
        with CheckpointReader(checkpoint_path(tmp_path, step)) as reader:
            assert {name: reader.read(name, 0, len(found)).tolist() for name, found in of_step.items()} == of_step
    assert len(copies.sizes) == 1
