"""Copies a rank's state into host memory, from which it is written while training goes on.

State in host memory is copied at once. State on a GPU is copied by a stream of its own into page-locked memory, which
every save uses again. The host queues the copies and goes on; no update begins before they are done:

    update k ──▶ forward and backward pass ──▶ update k+1
       └──▶ copies ──────────────────────────────┘ waits for them, on the GPU
              └──▶ the thread that writes them, too
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sft.engine.engine import Shard

_ALIGNMENT = 64
"""Of each tensor in the page-locked memory, in bytes."""


class Copies(Protocol):
    """Copies that a device makes beside its other work. A Protocol, so that their order is tested without a GPU."""

    def memory(self, num_bytes: int, report: Callable[[str], None]) -> Tensor:
        """Host memory for the copies, uint8; the one before is gone."""
        ...

    def begin(self) -> None:
        """Whatever is queued from now on starts when all work that the device has by now is done."""
        ...

    def queue(self, source: Tensor, target: Tensor) -> None:
        """Copy behind what was queued before; returns at once."""
        ...

    def hold_device(self) -> None:
        """The device begins nothing that it is given from now on before the copies are done; returns at once."""
        ...

    def hold_host(self) -> None:
        """Wait until the copies are done."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


@dataclass(frozen=True)
class StateCopy:
    """A copy of a state: `wait` before it is read."""

    state: Mapping[str, Shard]
    wait: Callable[[], None]


class StateCopier:
    """Makes the copies of one engine's state. Each takes the memory of the one before."""

    def __init__(self, report: Callable[[str], None], copies_of: Callable[[torch.device], Copies | None]) -> None:
        """Until `close`, no optimizer of this process updates anything while copies are under way.

        Args:
            report: takes a line for the log.
            copies_of: how state on a device is copied; None: at once.
        """
        self._report = report
        self._copies_of = copies_of
        self._copies: dict[torch.device, Copies | None] = {}
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._under_way: Copies | None = None
        # The last moment before state changes, whichever engine steps.
        self._hook = register_optimizer_step_pre_hook(self._before_update)

    def prepare(self, state: Mapping[str, Shard]) -> None:
        """Make the memory for copies of such a state, which takes seconds where it is large."""
        if copies := self._beside(state):
            self._places(state, copies)

    def copy(self, state: Mapping[str, Shard], must_copy: bool = True) -> StateCopy:
        """Copy the state as it is now; it may be updated as soon as this returns.

        Args:
            state: on one GPU, in host memory, or in both.
            must_copy: if not, parts in host memory are taken as they are.
        """
        copies = self._beside(state)
        places = self._places(state, copies) if copies else {}
        at_once = {
            name: shard.values.detach().to("cpu", copy=must_copy) for name, shard in state.items() if name not in places
        }
        copied = {name: shard._replace(values=(places | at_once)[name]) for name, shard in state.items()}
        if not copies:
            return StateCopy(copied, _nothing)
        copies.begin()
        for name, place in places.items():
            copies.queue(state[name].values.detach(), place)
        self._under_way = copies
        return StateCopy(copied, copies.hold_host)

    def close(self) -> None:
        """Free the memory, when nothing reads it any more."""
        self._hook.remove()
        for copies in self._copies.values():
            if copies:
                copies.hold_host()
                copies.close()

    def _beside(self, state: Mapping[str, Shard]) -> Copies | None:
        """What copies beside the training, if anything of this state is copied so."""
        for device in {shard.values.device for shard in state.values()} - self._copies.keys():
            self._copies[device] = self._copies_of(device)
        found = [copies for copies in self._copies.values() if copies]
        assert len(found) <= 1, "an engine has one GPU"
        return found[0] if found else None

    def _places(self, state: Mapping[str, Shard], copies: Copies) -> dict[str, Tensor]:
        """Where each tensor goes that is copied beside the training: views of the memory."""
        beside = {name: shard.values for name, shard in state.items() if self._copies[shard.values.device]}
        starts = list(accumulate((-(-v.nbytes // _ALIGNMENT) * _ALIGNMENT for v in beside.values()), initial=0))
        if starts[-1] > len(self._memory):
            self._memory = copies.memory(starts[-1], self._report)
        return {
            name: self._memory[start : start + values.nbytes].view(values.dtype)
            for (name, values), start in zip(beside.items(), starts, strict=False)
        }

    def _before_update(self, *_: Any) -> None:
        if self._under_way:
            self._under_way.hold_device()
            self._under_way = None


class CudaCopies:
    """Copies from one GPU, see `Copies`."""

    def __init__(self, device: torch.device) -> None:
        """The copies of tensors on `device`."""
        self._device = device
        # torch ships these constructors, and `cudart`, without types.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # A thread that waits for it sleeps.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._registered: Tensor | None = None

    def memory(self, num_bytes: int, report: Callable[[str], None]) -> Tensor:
        """See `Copies`. If it cannot be page-locked, copies are as right, and the host waits for them."""
        self.close()
        # Not torch's own pinned memory, which takes up to twice as much: it rounds up to a power of two.
        memory = torch.empty(num_bytes, dtype=torch.uint8)
        # A thread begins on the first GPU, and would take memory there.
        with torch.cuda.device(self._device):
            error = int(_runtime().cudaHostRegister(memory.data_ptr(), num_bytes, 0))
        if error:
            what = f"{num_bytes:,} bytes of host memory could not be page-locked (CUDA error {error})"
            report(f"{what}: training waits longer for saves. Raise the limit of locked memory (ulimit -l).")
        else:
            self._registered = memory
        return memory

    def begin(self) -> None:
        """See `Copies`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def queue(self, source: Tensor, target: Tensor) -> None:
        """See `Copies`."""
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        # If the engine is closed meanwhile, nobody else gets the source's memory before the copy is done.
        source.record_stream(self._stream)
        self._done.record(self._stream)

    def hold_device(self) -> None:
        """See `Copies`."""
        torch.cuda.current_stream(self._device).wait_event(self._done)

    def hold_host(self) -> None:
        """See `Copies`."""
        with torch.cuda.device(self._device):
            self._done.synchronize()

    def close(self) -> None:
        """See `Copies`."""
        if self._registered is not None:
            _runtime().cudaHostUnregister(self._registered.data_ptr())
            self._registered = None


def cuda_copies(device: torch.device) -> Copies | None:
    """How state on a GPU is copied; None for host memory."""
    return CudaCopies(device) if device.type == "cuda" else None


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _nothing() -> None:
    """The copy is there."""
