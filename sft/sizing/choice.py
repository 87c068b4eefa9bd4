"""How many packs a micro-batch holds, and how few layers are computed again, by the memory of a GPU: a pure rule.

The settings are the rungs of a ladder. Each needs more memory than the one below and is not slower, so the highest that
fits is taken. More memory never means fewer packs or more recomputation.

    packs:        1 … k    k … k        k … all of a worker's      k packs have `BUSY_TOKENS`
    recomputed:   all      all … none   none

Packs come first because a small micro-batch does not keep a GPU busy. In a micro-batch ZeRO-3 gathers parameters twice
(2 · 2 bytes each) and reduces gradients (4 bytes), while a token needs 6 operations a parameter: at F operations and
B bytes a second the arithmetic takes as long from 8 F / 6 B tokens. With F = 4e14 these are 3,600 at B = 1.5e11 in a
node, and 10,700 at B = 5e10 (400 Gbit/s for each GPU) between nodes. An elementwise kernel over 896 bfloat16 numbers a
token reads and writes 3.6 kB: at 3.35e12 bytes a second it takes as long as its launch (about 5 µs) from 4,700 tokens.
From there on, recomputation costs more: forward is a third of a step, so n of L layers add n / 3 L. These are
predictions: none was measured on a GPU.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from sft.config import SftConfig
from sft.recomputed_layers import AUTO, Recomputed, packs_or_one, share_of
from sft.sizing.families import FAMILIES
from sft.sizing.fit import GIB, Job, largest_packs_per_micro_batch
from sft.sizing.host_memory import host_memory
from sft.sizing.model_shape import ModelShape

BUSY_TOKENS, BUSY_TOKENS_BETWEEN_NODES = 8_192, 16_384
"""Tokens of a micro-batch that keep a GPU busy, and hide what ZeRO-3 sends meanwhile."""

USED_SHARE = 0.9
"""How much of a GPU `auto` plans to use, allowances included: the estimate may be a tenth too low."""

SETTLED = ("packs_per_micro_batch", "activation_checkpointing")
"""The fields of `train` that may be `auto`."""

_FORWARD_SHARE = 1 / 3


class Gpus(NamedTuple):
    """What a stage trains on."""

    num_workers: int
    capacity: int | None
    """Bytes of the smallest; None on CPUs, or if it is not known."""
    between_nodes: bool = False
    """Whether they are in several nodes."""

    @property
    def busy_tokens(self) -> int:
        """Tokens of a micro-batch that keep them busy."""
        return BUSY_TOKENS_BETWEEN_NODES if self.between_nodes else BUSY_TOKENS


class Option(NamedTuple):
    """One way to keep or recompute activations, with the packs that the stage has."""

    setting: str
    """As given on the command line."""
    num_recomputed: int
    """Layers."""
    more_arithmetic: float
    """What recomputation adds to a step, as a share of its arithmetic."""
    num_bytes: int
    """What each GPU needs, allowances included."""
    host_bytes: int
    """Activations in the host's memory."""
    largest_packs: int
    """The most packs in a micro-batch that fit; 0: none."""
    is_taken: bool
    """Whether it is that of the stage."""


def settle(config: SftConfig, shape: ModelShape | None, stage_index: int, gpus: Gpus) -> SftConfig:
    """The config with a number of packs and with layers in place of `auto`, for one stage.

    If the memory is not known, or there is no formula for the model's activations, a micro-batch has one pack, and all
    layers are computed again.
    """
    train = config.train
    if AUTO not in (train.packs_per_micro_batch, train.activation_checkpointing):
        return config
    if shape is None or shape.family not in FAMILIES or gpus.capacity is None:
        recomputed = "all" if train.activation_checkpointing == AUTO else train.activation_checkpointing
        values = packs_or_one(train.packs_per_micro_batch), recomputed
        changed = train.model_copy(update=dict(zip(SETTLED, values, strict=True)))
        return config.model_copy(update={"train": changed})
    job = Job(config, shape, stage_index, gpus.num_workers, gpus.between_nodes)
    jobs = [_having(job, *rung) for rung in ladder(job, gpus.busy_tokens)]
    num_fitting = bisect_right(jobs, round(USED_SHARE * gpus.capacity), key=lambda job: job.num_bytes)
    # The lowest is taken even if it does not fit: the plan says so.
    return jobs[max(0, num_fitting - 1)].config


def ladder(job: Job, busy_tokens: int) -> Iterator[tuple[int, Recomputed]]:
    """Packs and recomputed layers, from the least memory to the most."""
    train, num_layers = job.config.train, len(job.shape.layers)
    counts = _even_counts(job)
    if train.packs_per_micro_batch != AUTO:
        counts = [train.packs_per_micro_batch]
    if train.activation_checkpointing != AUTO:
        yield from ((packs, train.activation_checkpointing) for packs in counts)
        return
    pack_len = job.config.pack_len_tokens(job.stage_index)
    of_worker = pack_len / train.sequence_parallel
    enough = next((packs for packs in counts if packs * of_worker >= busy_tokens), counts[-1])
    yield from ((packs, "all") for packs in counts if packs <= enough)
    yield from ((enough, share_of(recomputed, num_layers)) for recomputed in range(num_layers - 1, -1, -1))
    yield from ((packs, "none") for packs in counts if packs > enough)


def _even_counts(job: Job) -> list[int]:
    """The numbers of packs that split a worker's part of a step evenly: any other takes as many passes as a smaller."""
    if job.config.model.dropout == "as_configured":
        return [1]  # it is drawn for each pack by itself
    whole = job.packs_per_worker
    return sorted({math.ceil(whole / math.ceil(whole / packs)) for packs in range(1, whole + 1)})


def options(job: Job, capacity: int) -> tuple[Option, ...]:
    """The ways to keep or recompute activations, from the fastest to the smallest. `job` has no `auto`."""
    taken = (job.config.train.activation_checkpointing, job.config.train.offload_activations)
    num_layers = len(job.shape.layers)
    ways: list[tuple[Recomputed, str]] = [("none", "none"), (2, "none"), ("all", "none"), ("all", "cpu")]
    if taken not in ways:
        ways.insert(1, taken)
    found = []
    for recomputed, offload in ways:
        other = job.having("train", activation_checkpointing=recomputed, offload_activations=offload)
        layers = other.setting.recomputed(num_layers)
        found.append(
            Option(
                f"train.activation_checkpointing={_shown(recomputed)}"
                + (f" train.offload_activations={offload}" if offload != "none" else ""),
                len(layers),
                more_arithmetic(job.shape, layers),
                other.num_bytes,
                host_memory(other.shape, other.setting).activations,
                largest_packs_per_micro_batch(other, capacity),
                (recomputed, offload) == taken,
            )
        )
    return tuple(sorted(found, key=lambda option: option.more_arithmetic))


def more_arithmetic(shape: ModelShape, recomputed: range) -> float:
    """What recomputation adds, as a share of a step's products with matrices."""
    again = sum(shape.layers[i].num_active for i in recomputed)
    return _FORWARD_SHARE * again / (sum(layer.num_active for layer in shape.layers) + shape.head_size)


def in_words(job: Job, capacity: int) -> str:
    """What a job without `auto` does: for people."""
    packs = packs_or_one(job.config.train.packs_per_micro_batch)
    num_layers = len(job.shape.layers)
    layers = len(job.setting.recomputed(num_layers))
    tokens = f"{job.setting.num_tokens:,} tokens"
    if job.setting.sequence_parallel > 1:
        tokens += f" a worker, {job.setting.sequence_parallel} share one"
    again = f"{layers} of {num_layers} layers compute" if layers else "no layer computes"
    return (
        f"micro-batches of {packs} pack{'' if packs == 1 else 's'} ({tokens}); {again} activations again; by estimate "
        f"{job.num_bytes / GIB:.1f} of {capacity / GIB:.1f} GiB"
    )


def _having(job: Job, packs: int, recomputed: Recomputed) -> Job:
    return job.having("train", packs_per_micro_batch=packs, activation_checkpointing=recomputed)


def _shown(recomputed: Recomputed) -> str:
    return f"{recomputed:.4g}" if isinstance(recomputed, float) else str(recomputed)
