"""What to change if a stage does not fit its GPUs: each change with the bytes that a GPU then needs.

Cheap changes come first. They keep about the same speed, and add up. Each of the others comes on top of these by
itself: more GPUs, less speed, other packs, another model.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sft.model.split_heads import largest_divisible
from sft.recomputed_layers import packs_or_one
from sft.sizing.fit import GIB, Job, largest_packs_per_micro_batch
from sft.sizing.host_memory import host_memory

_SMALL_CHUNK_TOKENS = 256


class Change(NamedTuple):
    """One thing to change."""

    setting: str
    """As given on the command line."""
    num_bytes: int
    """What each GPU then needs, allowances included."""
    price: str


def advise(job: Job, capacity: int) -> Iterator[Change]:
    """The changes to a job that needs more than GPUs with `capacity` bytes have; empty if it fits."""
    for setting, changed, price in _cheap_changes(job, capacity):
        if job.num_bytes > capacity and changed.num_bytes < job.num_bytes:
            job = changed
            yield Change(setting, job.num_bytes, price)
    if job.num_bytes > capacity:
        for setting, changed, price in _dear_changes(job, capacity):
            if changed.num_bytes < job.num_bytes:
                yield Change(setting, changed.num_bytes, price)


def _cheap_changes(job: Job, capacity: int) -> Iterator[tuple[str, Job, str]]:
    """Each includes those before it."""
    job = job.having("train", activation_checkpointing="all")
    yield "train.activation_checkpointing=all", job, "a third more arithmetic"
    now, most = packs_or_one(job.config.train.packs_per_micro_batch), largest_packs_per_micro_batch(job, capacity)
    packs = max(1, min(now, most))
    job = job.having("train", packs_per_micro_batch=packs)
    yield f"train.packs_per_micro_batch={packs}", job, "more traffic between workers"
    job = job.having("train", logits_chunk_tokens=min(job.config.train.logits_chunk_tokens, _SMALL_CHUNK_TOKENS))
    yield f"train.logits_chunk_tokens={_SMALL_CHUNK_TOKENS}", job, "smaller products in the head"
    if (shared := _shared(job, capacity)) is not None:
        job = shared
        parts = job.config.train.sequence_parallel
        price = f"{parts} workers share each pack: more traffic, best within a node"
        yield f"train.sequence_parallel={parts}", job, price
    job = job.having("train", offload_activations="cpu")
    inputs = host_memory(job.shape, job.setting).activations / GIB
    yield "train.offload_activations=cpu", job, f"copies in each layer; {inputs:,.0f} GiB of host memory a worker"


def _dear_changes(job: Job, capacity: int) -> Iterator[tuple[str, Job, str]]:
    """Each alone."""
    more = job
    while more.num_bytes > capacity and 2 * more.num_workers <= job.config.train.packs_per_step:
        more = more._replace(num_workers=2 * more.num_workers)
    yield f"cluster.workers={more.num_workers}", more, "more GPUs for less time"
    offloaded = job.having("deepspeed", offload_optimizer="cpu")
    price = f"updates wait for the CPUs; {_host_gib(offloaded)} of host memory"
    yield "deepspeed.offload_optimizer=cpu", offloaded, price
    both = offloaded.having("deepspeed", offload_parameters="cpu")
    settings = "deepspeed.offload_optimizer=cpu deepspeed.offload_parameters=cpu"
    yield settings, both, f"layers wait, too; {_host_gib(both)} of host memory"
    least = job.config.data.max_len_tokens
    if job.config.pack_len_tokens(job.stage_index) > least:
        stages = tuple(stage.model_copy(update={"pack_len_tokens": least}) for stage in job.config.stages)
        shorter = job._replace(config=job.config.model_copy(update={"stages": stages}))
        yield f"pack_len_tokens={least}", shorter, "other packs; fewer tokens a step, if packs_per_step stays"


def _shared(job: Job, capacity: int) -> Job | None:
    """The job with the fewest workers to a micro-batch that fit, else with the most; None if they cannot share one."""
    train, model = job.config.train, job.config.model
    if train.packing == "one_example" or model.dropout == "as_configured":
        return None
    heads = [(layer.attention.num_heads, layer.attention.num_key_heads) for layer in job.shape.layers]
    sizes = [n for n in largest_divisible(heads, job.num_workers) if n > train.sequence_parallel]
    jobs = [job.having("train", sequence_parallel=n) for n in sizes if job.num_workers % n == 0]
    return next((shared for shared in jobs if shared.num_bytes <= capacity), jobs[-1] if jobs else None)


def _host_gib(job: Job) -> str:
    return f"{host_memory(job.shape, job.setting).total / GIB:,.0f} GiB a worker"
