"""How fast a rank computes by itself, to tell a slow GPU from the others that wait for it.

The ranks of ZeRO-3 wait for each other at every layer, so their steps take the same time, whichever is slow. So this
times one layer that has no collective in it: the largest matrix product.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn


class LayerClock:
    """Times one linear layer of a model whenever it runs forward in training."""

    def __init__(self, model: nn.Module) -> None:
        """Times the first of the largest layers. Make it after the engine, whose hooks must run around it."""
        self._running: list[tuple[int, Any, Any]] = []  # tokens, start, end
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if linear:
            layer = max(linear, key=lambda module: module.in_features * module.out_features)
            layer.register_forward_pre_hook(self._begin)
            # Before the engine's hook, which releases the gathered parameters.
            layer.register_forward_hook(self._end, prepend=True)

    def take(self) -> float:
        """Seconds a token in the fastest call since the last `take`; waits for the device; 0 without a call.

        The fastest counts, because a call with few tokens takes more time a token.
        """
        calls, self._running = self._running, []
        return min((_seconds(start, end) / tokens for tokens, start, end in calls if end is not None), default=0.0)

    def _begin(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            self._running.append((inputs[0].numel() // inputs[0].shape[-1], _now(inputs[0]), None))

    def _end(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training:
            tokens, start, _ = self._running[-1]
            self._running[-1] = tokens, start, _now(output)


def _now(tensor: Tensor) -> Any:
    if not tensor.is_cuda:
        return time.perf_counter()
    # torch ships this constructor without types.
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _seconds(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
