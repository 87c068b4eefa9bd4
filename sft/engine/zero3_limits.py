"""ZeRO-3's own limits, by the model, the number of ranks and the network between them: a pure rule.

They change speed and memory, and no number. The rule follows from the source of DeepSpeed 0.19.8; what it gives on GPUs
is a prediction (docs/BENCHMARKS.md).

- Ahead of a layer, DeepSpeed gathers parameters until they are a prefetch bucket. What of the next layer is not among
  them is gathered when that layer begins, which then waits for it. So a bucket has the largest layer.
- It does so only up to a limit of whole parameters, those in use included: the layer, or the head, and the next layer.
- A ring of W ranks sends n bytes in W - 1 turns, each of which takes `_TURN_SECONDS` and n / W bytes. Between nodes the
  reduce bucket is so large that the turns themselves take a tenth of the time at most.
- Tensors of up to `PERSISTENT` elements (norms, biases) stay whole, and are gathered once in a step: with larger ones
  each rank would hold more, and nothing is saved, since a layer's tensors are gathered in one piece.
"""

from collections.abc import Iterable
from typing import NamedTuple

PERSISTENT = 100_000
"""DeepSpeed's default, in elements."""

_LEAST_BUCKET = 100_000_000
_LARGEST_BUCKET = 500_000_000
"""Elements of a reduce bucket; in float32 it takes 0.4 or 2 GB of each GPU, and as much again while it is sent."""
_LEAST_WHOLE = 1_000_000_000
"""DeepSpeed's default, in elements: a small model is gathered once in a step."""

_TURN_SECONDS = 1e-5
_BYTES_PER_SECOND = 50e9
"""Assumed between nodes: 400 Gbit/s for each GPU."""
_TURNS_SHARE = 0.1
_FLOAT32 = 4


class PartSizes(NamedTuple):
    """The parts of a model that are whole at a time, in elements. 0: not known."""

    largest_layer: int = 0
    """What is split of the largest decoder layer."""
    head: int = 0
    """The matrix that makes logits."""


UNKNOWN_SIZES = PartSizes()


class Zero3Limits(NamedTuple):
    """DeepSpeed's limits, in elements."""

    reduce: int
    """Gradients that wait to be reduced together."""
    prefetch: int
    """Parameters that are gathered before they are needed."""
    live: int
    """Up to this many whole parameters, others are gathered ahead."""
    reuse_distance: int
    """Parameters that are used again before this many others are not released."""
    persistent: int
    """Tensors of up to this size stay whole."""

    @property
    def as_zero_optimization(self) -> dict[str, int]:
        """For DeepSpeed's config."""
        return {
            "reduce_bucket_size": self.reduce,
            "stage3_prefetch_bucket_size": self.prefetch,
            "stage3_max_live_parameters": self.live,
            "stage3_max_reuse_distance": self.reuse_distance,
            "stage3_param_persistence_threshold": self.persistent,
        }


def choose_limits(sizes: PartSizes, num_ranks: int, between_nodes: bool) -> Zero3Limits:
    """The limits for a model with these parts."""
    reduce = _LEAST_BUCKET
    if between_nodes:
        bytes_per_turn = (1 / _TURNS_SHARE - 1) * _TURN_SECONDS * _BYTES_PER_SECOND
        reduce = min(max(reduce, round(num_ranks * bytes_per_turn / _FLOAT32)), _LARGEST_BUCKET)
    layer, in_use = sizes.largest_layer, max(sizes.largest_layer, sizes.head)
    return Zero3Limits(reduce, max(_LEAST_BUCKET, layer), max(_LEAST_WHOLE, in_use + layer), _LEAST_WHOLE, PERSISTENT)


def split_elements(sizes: Iterable[int]) -> int:
    """The elements of tensors of these sizes that are split, and gathered at each use."""
    return sum(size for size in sizes if size > PERSISTENT)
