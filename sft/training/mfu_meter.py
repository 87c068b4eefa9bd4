"""Model FLOPs utilisation (MFU): the share of the GPUs' arithmetic that a step used (see `sft.sizing.flops`)."""

import torch

from sft.errors import UserError
from sft.sizing.flops import TokenCounts, training_flops
from sft.sizing.gpus import GPUS, kind_of
from sft.sizing.model_shape import ModelShape
from sft.sizing.read_shape import read_shape
from sft.world import World


class MfuMeter:
    """Measures one stage; gives None for devices or models that `sft.sizing` does not know."""

    def __init__(self, model_path: str, world: World) -> None:
        """`model_path`: the model that is trained."""
        self._shape: ModelShape | None = None
        self._flops_per_second = 0.0
        kind = kind_of(torch.cuda.get_device_name(world.device)) if world.on_gpu else None
        if kind is None:
            return
        self._flops_per_second = GPUS[kind].teraflops * 1e12 * world.size
        try:
            self._shape, _ = read_shape(model_path)
        except UserError:
            return

    def __call__(self, counts: TokenCounts, seconds: float) -> float | None:
        """The MFU of a step, 0 to 1."""
        if self._shape is None or not seconds:
            return None
        return training_flops(self._shape, counts) / (seconds * self._flops_per_second)
