"""Ranks whose model has fused kernels, run by Triton's interpreter, beside ranks whose model has none."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from deepspeed.utils import set_z3_leaf_modules

from sft.config import SftConfig
from sft.engine import trained_model
from sft.engine.zero3 import Zero3Engine
from sft.model import fused
from sft.model.kernels import DEFINITIONS, OURS, fuse
from sft.ranks.torch_ranks import TorchRanks
from sft.world import World
from tests.distributed.scenarios import build_loader, take_steps, whole_state

# The interpreter is slow; and only a norm's kernel reads weights, which have to be gathered when it does.
KERNELS = DEFINITIONS._replace(norm=OURS.norm)


def run_fused(rank: int, size: int, settings: dict[str, Any], folder: str) -> None:
    """A step with each of the settings: [kernels, leaf, activation checkpointing]."""
    fused.BLOCK = 1 << 16  # the interpreter takes as long for small programs as for large ones
    ranks, results = TorchRanks(World(rank, size, rank)), []
    for has_kernels, is_leaf, checkpointing in settings["cases"]:
        content = copy.deepcopy(settings["config"])
        content["train"]["activation_checkpointing"] = checkpointing
        config = SftConfig.model_validate(content)
        put: Counter[str] = Counter()

        def prepare(model: Any, *_: Any, kernels: bool = has_kernels, leaf: bool = is_leaf, put: Any = put) -> None:
            if kernels:
                put.update(fuse(model, KERNELS, torch.device("cpu")))
            if leaf:
                set_z3_leaf_modules(model, [type(model.model.layers[0])])

        with mock.patch.object(trained_model, "apply_kernels", prepare):
            engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
        loader = build_loader(settings, ranks.world)
        [step] = take_steps(engine, config, loader, 0, 1)
        results.append({"put": dict(put), "step": step, "gradient": whole_state(engine, "exp_avg").tolist()})
        engine.close()
    if rank == 0:
        Path(folder, "result.json").write_text(json.dumps(results))
