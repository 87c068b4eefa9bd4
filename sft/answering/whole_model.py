"""A whole model on one device, to be asked: loaded from a folder, or filled from an engine that is split over ranks."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sft.answering.rounds import BatchSize
from sft.config import SftConfig
from sft.data.collate import Batch
from sft.engine.engine import Engine, run_without_gradient
from sft.engine.trained_model import load_trained
from sft.model.loading import load_plain_model
from sft.model.loss import TokenMeasure, all_of, sums_by_segment
from sft.ranks.agreement import any_rank
from sft.ranks.ranks import OneRank, Ranks
from sft.world import World

_ROOM = 1.5
"""A copy needs room for answers, too: keys and values of their tokens, and logits."""


class WholeModel:
    """See `sft.answering.asking.AskableModel`. It computes as an engine of one rank does, and cannot be trained."""

    def __init__(
        self, config: SftConfig, path: str, world: World, trained: Callable[[str], Tensor] | None = None
    ) -> None:
        """Load the model at `path`. The layout of the config is settled.

        Args:
            config: the run's.
            path: a folder or Hub id.
            world: where the model is, and which share of the held-out packs it is measured on.
            trained: gives each trained parameter by its name, in place of the one in the model's files.

        Raises:
            UserError: it cannot be loaded.
        """
        self.ranks, self._device = OneRank(world), torch.device(world.device)
        module = load_trained(config, path, self._device, awaits_state=trained is not None)
        self._module = module.to(self._device)
        if trained is not None:
            with torch.no_grad():
                for name, parameter in self.hf_model.named_parameters():
                    if parameter.requires_grad:
                        parameter.copy_(trained(name))

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        return self._module.model

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """See `sft.engine.engine.Engine`."""
        on_device, measure = batch.to(self._device), all_of(measures)
        measured_SM = run_without_gradient(self._module, lambda: self._module(on_device, False, measure), False)
        return sums_by_segment(measured_SM, on_device).cpu()

    def token_nll(self, batch: Batch) -> Tensor:
        """See `sft.engine.engine.Engine`."""
        return run_without_gradient(self._module, lambda: self._module(batch.to(self._device)), False).cpu()


def copy_fits(engine: Engine, config: SftConfig) -> bool:
    """Whether a whole copy of the engine's model fits in the memory of every rank; all ranks call this together."""
    numbers = sum(int(getattr(p, "ds_numel", p.numel())) for p in engine.hf_model.parameters())
    needed = numbers * torch.finfo(getattr(torch, config.model.dtype)).bits // 8 * _ROOM
    return not any_rank(engine.ranks, needed > _free_bytes(engine.ranks.world))


def batch_size(model: Any, ranks: Ranks) -> BatchSize:
    """The most that a batch of answers holds beside what lies on the devices; all ranks call this together.

    Keys and values of its tokens take at most a quarter of the memory that is free: a whole copy of the model may still
    come. On a CPU that is never what limits it.
    """
    world, usual = ranks.world, BatchSize()
    if not world.on_gpu:
        return usual
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    numbers = 2 * config.num_hidden_layers * heads * width
    slots = int(_free_bytes(world) / 4 // (numbers * model.dtype.itemsize))
    return usual._replace(slots=max(1, min(usual.slots, -int(ranks.max(torch.tensor([-slots])).item()))))


def _free_bytes(world: World) -> float:
    """Memory that nobody uses on this rank's device; of the host's, this rank's part."""
    if world.on_gpu:
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info(world.device)[0])
    available = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(available[1]) * 1024 / len(world.node_ranks) if available else 0.0


@contextmanager
def whole_copy(engine: Engine, config: SftConfig, path: str, device: torch.device) -> Iterator[Any]:
    """A copy of the engine's model, whole on each rank, for as long as the block lasts; all ranks call this together.

    What is not trained, such as tables of positions, comes from the folder that the engine was loaded from.

    Args:
        engine: split over ranks.
        config: the run's.
        path: where the engine's model was loaded from.
        device: where the copy goes.
    """
    dtype = getattr(torch, config.model.dtype)
    copied = load_plain_model(config.model, path, dtype).to(device)
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    own = dict(copied.named_parameters())
    for name, values in engine.gather_parameters(list(own)):
        own[name].copy_(values)
    yield copied
