"""Whether a model computes the same if ranks share a row: tried on a tiny model of its class, with threads as ranks.

A layer that looks at other tokens by itself (a convolution, a state, a shift of tokens, a choice among tokens) sees
only those of its own part. So the probe for packed rows (`packing_probe`) runs on parts, whose cuts lie within
examples, and compares with the model's own forward pass over whole ones.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from sft.data.collate import Batch
from sft.data.sequence_parts import is_own_target, part_of
from sft.model.loss import SupervisedNll
from sft.model.packing_probe import TokenNll
from sft.model.sequence_parallel import SequenceGroup

T = TypeVar("T")

NUM_PARTS = 2
"""Of the tiny model's rows, in which two make a cut within an example. A tiny model has four heads."""
_LONGEST_SECONDS = 60.0


def run_parts(num_parts: int, main: Callable[[SequenceGroup], T]) -> list[T]:
    """What `main` returns in each of so many threads, which exchange with each other as the ranks of a group.

    Raises:
        Exception: what `main` has raised in one of them; the others end then.
    """
    barrier, sent = threading.Barrier(num_parts), [torch.empty(0)] * num_parts

    def run(place: int) -> T:
        def all_to_all(values: Tensor) -> Tensor:
            sent[place] = values
            barrier.wait(_LONGEST_SECONDS)
            received = torch.stack([values_of_one[place] for values_of_one in sent])
            barrier.wait(_LONGEST_SECONDS)
            return received

        try:
            return main(SequenceGroup(place, num_parts, all_to_all))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(num_parts, "part") as threads:
        futures = [threads.submit(run, place) for place in range(num_parts)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    # Who waited in vain for the others has only that to say.
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


def nll_in_parts(module: SupervisedNll, num_parts: int) -> TokenNll:
    """`TokenNll` for the probe: packed rows are run in parts, the model's own forward pass on whole rows."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    # A module may keep something of its forward pass: so each part has modules of its own, with the same parameters.
    modules = [copy.deepcopy(module, dict(shared)) for _ in range(num_parts)]

    def nll(batch: Batch, by_own_forward: bool) -> Tensor:
        if by_own_forward:
            with torch.no_grad():
                whole: Tensor = module(batch, True)
            return whole

        def run(group: SequenceGroup) -> Tensor:
            own = modules[group.place]
            own.group = group
            with torch.no_grad():
                nll_S: Tensor = own(part_of(batch, group.place, group.size))
            return nll_S

        return joined(batch, run_parts(num_parts, run))

    return nll


def joined(batch: Batch, parts: Sequence[Tensor]) -> Tensor:
    """The values of all targets of a row from those of its parts, in the order of the row: (S,)."""
    values_S = parts[0].new_zeros(len(batch.targets_S))
    for place, part in enumerate(parts):
        values_S[is_own_target(batch, place, len(parts))] = part
    return values_S
