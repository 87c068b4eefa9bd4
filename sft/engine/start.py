"""Starts the engine of the training. DeepSpeed settles what it computes on when it is imported, so it is imported here,
when the rank's device is known.
"""

import os

from sft.config import OptimizerConfig, SftConfig
from sft.engine.engine import Engine
from sft.ranks.ranks import Ranks


def start_engine(config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks) -> Engine:
    """ZeRO-3 with the model at a path, on the device of this rank. All ranks call this together."""
    os.environ["DS_ACCELERATOR"] = "cuda" if ranks.world.on_gpu else "cpu"
    from sft.engine.zero3 import Zero3Engine  # noqa: PLC0415  (see above)

    return Zero3Engine(config, optimizer, model_path, ranks)
