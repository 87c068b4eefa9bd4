"""Frees a DeepSpeed engine. Found in DeepSpeed 0.19.8 and tried: if any of these is left out, all its memory stays.

Besides the engine's own hooks, two things that live as long as the process hold it: a list of running modules, from
which the model is never removed, and the cache of a method, which holds the coordinator of the parameters. hpZ leaves a
process group that a second engine may not make again.
"""

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import groups


def release(engine: Any) -> None:
    """Remove all references to the engine, except the caller's own. All ranks call this together."""
    engine.destroy()
    modules = set(engine.module.modules())
    FWD_MODULE_STACK[:] = [module for module in FWD_MODULE_STACK if module not in modules]
    for cache in _caches_of_methods(PartitionedParameterCoordinator):
        cache.cache_clear()
    copy_group = groups._get_zero_param_intra_parallel_group()
    if copy_group is not None:
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
        dist.destroy_process_group(copy_group)


def _caches_of_methods(of_class: type) -> Iterator[Any]:
    """The `lru_cache` of each method that has one, also inside of another decorator."""
    for member in vars(of_class).values():
        inside = [cell.cell_contents for cell in getattr(member, "__closure__", None) or ()]
        yield from (found for found in (member, *inside) if hasattr(found, "cache_clear"))
