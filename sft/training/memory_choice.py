"""Settles packs of a micro-batch and recomputed layers for a stage, where the config leaves them to the run (`auto`).

It is decided when a stage is about to be loaded, from the smallest GPU of all ranks and their number: so an elastic job
decides anew with each number of workers, and all ranks run the same. The result of a step is the same to rounding.
"""

import json
from collections.abc import Callable
from typing import Any

import torch

from sft.config import SftConfig
from sft.errors import UserError
from sft.ranks.ranks import Ranks
from sft.recomputed_layers import AUTO
from sft.run_events import EventLog
from sft.sizing.choice import SETTLED, Gpus, in_words, settle
from sft.sizing.families import FAMILIES
from sft.sizing.fit import Job
from sft.sizing.read_shape import read_shape
from sft.world import World

_UNKNOWN = "one pack in a micro-batch, and all layers compute activations again, where the config leaves it"


def gpu_bytes(world: World) -> int:
    """The memory of this rank's GPU."""
    return int(torch.cuda.get_device_properties(world.device).total_memory)


def settle_memory(
    config: SftConfig, index: int, ranks: Ranks, events: EventLog, memory_of: Callable[[World], int] = gpu_bytes
) -> SftConfig:
    """The config with both settled for a stage. All ranks call this together.

    Args:
        config: the run.
        index: the stage.
        ranks: all ranks.
        events: where the first rank says what was chosen.
        memory_of: the bytes of a rank's GPU.
    """
    world, train = ranks.world, config.train
    if AUTO not in (train.packs_per_micro_batch, train.activation_checkpointing) or not world.on_gpu:
        return settle(config, None, index, Gpus(world.size, None))
    capacity = min(map(int, ranks.gather(str(memory_of(world)))))
    gpus = Gpus(world.size, capacity, between_nodes=world.local_size < world.size)
    # The first rank decides: only it has to find the model's config.json, and to be right.
    values: dict[str, Any] = {}
    if world.is_first:
        settled, text = _decide(config, index, gpus)
        values = {name: getattr(settled.train, name) for name in SETTLED}
        stage = config.stages[index].name
        events.add("memory", text, stage=stage, num_workers=world.size, gpu_bytes=capacity, **values)
    values = json.loads(ranks.gather(json.dumps(values))[0])
    return config.model_copy(update={"train": train.model_copy(update=values)})


def _decide(config: SftConfig, index: int, gpus: Gpus) -> tuple[SftConfig, str]:
    """The config with both settled, and what that means."""
    try:
        shape, _ = read_shape(config.model.path)
    except UserError as error:
        return settle(config, None, index, gpus), f"{_UNKNOWN}: {error}"
    settled = settle(config, shape, index, gpus)
    if shape.family not in FAMILIES:
        return settled, f"{_UNKNOWN}: there is no formula for the activations of {shape.family}"
    assert gpus.capacity is not None
    return settled, in_words(Job(settled, shape, index, gpus.num_workers, gpus.between_nodes), gpus.capacity)
