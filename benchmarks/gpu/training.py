"""Engines for a part: a config with some settings, the engine that it chooses, and steps of it."""

import importlib.util
import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers.utils.logging import disable_progress_bar

from benchmarks.gpu.models import folder_of
from benchmarks.gpu.part import Setting
from sft.config import SftConfig
from sft.data.collate import Batch, collate
from sft.engine.choice import choose_engine
from sft.engine.engine import Engine
from sft.engine.engines import ENGINES
from sft.model.flash_attention import use_flash
from sft.ranks.torch_ranks import TorchRanks
from sft.schema import Pack
from sft.sizing.choice import Gpus, settle
from sft.sizing.flops import TokenCounts
from sft.sizing.model_shape import model_shape
from sft.training.process import quiet_third_parties
from sft.world import World

Changes = Mapping[str, Any]
"""`section.field` → value."""
LR = 1e-4


@dataclass(frozen=True)
class Workload:
    """The model and the shape of a step."""

    model: str
    """A name of `models`."""
    pack_len: int
    packs_per_step: int


def build_config(setting: Setting, work: Workload, changes: Changes) -> SftConfig:
    """The config of one stage, with these changes."""
    content: dict[str, Any] = {
        "run": {"name": "gpu", "dir": str(setting.folder / "run")},
        "model": {"path": str(folder_of(setting, work.model))},
        "data": {"sources": [{"name": "none", "path": "none/none"}]},
        "stages": [{"name": "only", "budget": {"steps": 8}, "optimizer": {"lr": LR}}],
        "train": {"pack_len_tokens": work.pack_len, "packs_per_step": work.packs_per_step},
    }
    for path, value in changes.items():
        section, _, name = path.partition(".")
        content.setdefault(section, {})[name] = value
    return SftConfig.model_validate(content)


def world_of(setting: Setting) -> World:
    return World(device="cuda:0" if setting.on_gpu else "cpu")


@contextmanager
def alone(setting: Setting) -> Iterator[TorchRanks]:
    """The group of one rank that ZeRO-3 needs."""
    quiet_third_parties()
    disable_progress_bar()
    preload(setting.device)
    if setting.on_gpu:
        torch.cuda.set_device(0)
    is_ours = not dist.is_initialized()
    if is_ours:
        dist.init_process_group("nccl" if setting.on_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield TorchRanks(world_of(setting))
    finally:
        # ZeRO-3 keeps its groups for the life of the process: the next part of a small run uses them.
        if is_ours and setting.on_gpu:
            dist.destroy_process_group()


def preload(device: str) -> None:
    """Import DeepSpeed, which chooses its device then. If that fails, only cases with ZeRO-3 do.

    Where it would compile an operation, which takes minutes and a compiler, it fails.
    """
    os.environ["DS_ACCELERATOR"] = device
    try:
        from deepspeed.ops.op_builder.builder import OpBuilder  # noqa: PLC0415

        import sft.engine.zero3  # noqa: F401, PLC0415  (see above)
    except Exception:
        traceback.print_exc()
        return
    OpBuilder.jit_load = _refuse


def _refuse(builder: Any, verbose: bool = True) -> None:
    raise RuntimeError(f"DeepSpeed would compile {builder.name}")


def has_liger() -> bool:
    return importlib.util.find_spec("liger_kernel") is not None


def settled(setting: Setting, config: SftConfig) -> SftConfig:
    """The config with the packs of a micro-batch and the recomputed layers that the run would choose."""
    capacity = torch.cuda.get_device_properties(0).total_memory if setting.on_gpu else None
    content = json.loads((Path(config.model.path) / "config.json").read_text())
    return settle(config, model_shape(content), 0, Gpus(1, capacity))


@contextmanager
def engine_of(config: SftConfig, ranks: TorchRanks, name: str | None = None) -> Iterator[Engine]:
    """The engine of a settled config, closed at the end; `name` instead of the config's choice."""
    use_flash(config.train.flash_attention, torch.device(ranks.world.device))
    build = ENGINES[name or choose_engine(config, 1)]
    engine = build(config, config.stages[0].optimizer, config.model.path, ranks)
    try:
        yield engine
    finally:
        engine.close()


def micro_batches(setting: Setting, config: SftConfig, packs: Sequence[Pack]) -> list[Batch]:
    """The packs in micro-batches, for a GPU in pinned memory, as the loader gives them."""
    size = config.train.packs_per_micro_batch
    assert isinstance(size, int), "the config is not settled"
    batches = [collate(packs[i : i + size]) for i in range(0, len(packs), size)]
    return [batch.pin() for batch in batches] if setting.on_gpu else batches


def supervised(batches: Sequence[Batch]) -> int:
    return sum(batch.num_supervised_tokens for batch in batches)


def counts_of(packs: Sequence[Pack]) -> TokenCounts:
    """What the arithmetic of a step depends on."""
    lengths = [int(n) for pack in packs for n in pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]]
    num_supervised = sum(int(pack.loss_mask.sum()) for pack in packs)
    return TokenCounts(sum(lengths), num_supervised, sum(n * n for n in lengths))
