"""The cases of a part, one after the other: one that fails takes no other with it."""

import gc
from collections.abc import Callable, Iterator, Mapping

import torch

from benchmarks.gpu.part import Row, Setting, failed


def each(setting: Setting, cases: Mapping[str, Callable[[], Iterator[Row]]], seconds: float) -> Iterator[Row]:
    """The rows of all cases; one that fails is a row, and the others go on.

    Args:
        setting: gives the time.
        cases: by name, in order.
        seconds: what a case takes; with less left, it is not begun.
    """
    left_out = []
    for name, case in cases.items():
        if setting.seconds_left < seconds:
            left_out.append(name)
            continue
        try:
            yield from case()
        except Exception as error:
            row = failed(name, error)
        else:
            continue
        # By now nothing holds the tensors of the failed case.
        gc.collect()
        if setting.on_gpu:
            torch.cuda.empty_cache()
        yield row
    if left_out:
        yield Row("not begun, for want of time", {"cases": ", ".join(left_out)})
