"""Brings a number of the update to the host without a wait for the update itself.

The gradient's norm is known before the update begins. Its copy is queued there, ahead of the update's kernels. So by
the time it is read, it has arrived, and the host can queue the next step while the device still updates.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class EarlyCopy:
    """Copies a number to the host when an optimizer begins an update."""

    def __init__(self, optimizer: Optimizer, number: Callable[[], Tensor]) -> None:
        """`number` gives the tensor, of one element on any device, when the update begins."""
        self._number = number
        self._copy: Tensor | None = None
        self._arrived: Any = None
        optimizer.register_step_pre_hook(self._begin)

    def take(self) -> float:
        """The number of the update that was made last."""
        assert self._copy is not None, "no update was made"
        if self._arrived is not None:
            self._arrived.synchronize()
        value, self._copy, self._arrived = float(self._copy), None, None
        return value

    def _begin(self, *_: Any) -> None:
        # ZeRO-3 updates in parts; the number is the same in all.
        if self._copy is not None:
            return
        number = self._number().detach()
        self._copy = number.to("cpu", non_blocking=True)
        if number.is_cuda:
            # torch ships this constructor without types.
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()
