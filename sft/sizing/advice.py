"""What to change if a stage does not fit its GPUs: each change with the bytes that a GPU then needs.

Cheap changes come first. They keep about the same speed, and add up. Each of the others comes on top of these by
itself: more GPUs, less speed, other packs, another model.
"""

from collections.abc import Iterator
from typing import NamedTuple

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
    job = job.having("train", activation_checkpointing=True)
    yield "train.activation_checkpointing=true", job, "a third more arithmetic"
    packs = max(1, min(job.config.train.packs_per_micro_batch, largest_packs_per_micro_batch(job, capacity)))
    job = job.having("train", packs_per_micro_batch=packs)
    yield f"train.packs_per_micro_batch={packs}", job, "more traffic between workers"
    job = job.having("train", logits_chunk_tokens=min(job.config.train.logits_chunk_tokens, _SMALL_CHUNK_TOKENS))
    yield f"train.logits_chunk_tokens={_SMALL_CHUNK_TOKENS}", job, "smaller products in the head"


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


def _host_gib(job: Job) -> str:
    return f"{host_memory(job.shape, job.setting).total / GIB:,.0f} GiB a worker"
