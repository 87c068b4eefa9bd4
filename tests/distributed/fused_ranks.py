"""Ranks whose model has fused kernels, run by Triton's interpreter, beside ranks whose model has none."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from deepspeed.utils import set_z3_leaf_modules
from torch import Tensor

from sft.config import SftConfig
from sft.engine import zero3
from sft.engine.zero3 import Zero3Engine
from sft.model import elementwise
from sft.model.elementwise import RotaryForm
from sft.model.kernels import OURS, fuse
from sft.ranks.torch_ranks import TorchRanks
from sft.world import World
from tests.distributed.scenarios import build_loader, take_steps, whole_state


def _rotary(xs: tuple[Tensor, ...], cos: Tensor, sin: Tensor, form: RotaryForm) -> tuple[Tensor, ...]:
    return tuple(elementwise.rotary(x, cos, sin, form) for x in xs)


# The interpreter takes seconds for a program for each token; and no weight is gathered for this one.
KERNELS = OURS._replace(rotary=_rotary)


def run_fused(rank: int, size: int, settings: dict[str, Any], folder: str) -> None:
    """Two steps with each of the settings: [kernels, leaf, activation checkpointing]."""
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

        with mock.patch.object(zero3, "apply_kernels", prepare):
            engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
        loader = build_loader(settings, ranks.world)
        steps = take_steps(engine, config, loader, 0, 1)
        gradient = whole_state(engine, "exp_avg")
        steps += take_steps(engine, config, loader, 1, 2)
        results.append({"put": dict(put), "steps": steps, "gradient": gradient.tolist()})
        engine.close()
    if rank == 0:
        Path(folder, "result.json").write_text(json.dumps(results))
