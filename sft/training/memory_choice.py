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
from sft.sizing.choice import Gpus, in_words, settle
from sft.sizing.families import FAMILIES
from sft.sizing.fit import Job
from sft.sizing.model_shape import ModelShape
from sft.sizing.read_shape import read_shape
from sft.world import World

_FIELDS = ("packs_per_micro_batch", "activation_checkpointing")


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
    decided = json.dumps(_decide(config, index, gpus)) if world.is_first else ""
    chosen: dict[str, Any] = json.loads(ranks.gather(decided)[0])
    if world.is_first:
        stage = config.stages[index].name
        values = {name: chosen[name] for name in _FIELDS}
        events.add("memory", chosen["text"], stage=stage, num_workers=world.size, gpu_bytes=capacity, **values)
    values = {name: chosen[name] for name in _FIELDS}
    return config.model_copy(update={"train": train.model_copy(update=values)})


def _decide(config: SftConfig, index: int, gpus: Gpus) -> dict[str, Any]:
    shape, why = _shape(config.model.path)
    settled = settle(config, shape, index, gpus)
    text = f"one pack in a micro-batch, and all layers compute activations again, where the config leaves it: {why}"
    if shape is not None and gpus.capacity is not None:
        text = in_words(Job(settled, shape, index, gpus.num_workers, gpus.between_nodes), gpus.capacity)
    return {**{name: getattr(settled.train, name) for name in _FIELDS}, "text": text}


def _shape(model_path: str) -> tuple[ModelShape | None, str]:
    """The shape of a model whose memory is known well enough, or why not."""
    try:
        shape, _ = read_shape(model_path)
    except UserError as error:
        return None, str(error)
    if shape.family not in FAMILIES:
        return None, f"there is no formula for the activations of {shape.family}"
    return shape, ""
