"""Which engine a run has: the plain one where there is nothing to split, else ZeRO-3."""

from typing import Literal

from sft.config import SftConfig
from sft.errors import UserError

EngineName = Literal["plain", "zero3"]


def choose_engine(config: SftConfig, num_ranks: int) -> EngineName:
    """The engine for this number of ranks. Checkpoints of both are the same, so it may change from start to start.

    Raises:
        UserError: the plain engine is asked for with several ranks.
    """
    if config.train.engine == "plain" and num_ranks > 1:
        raise UserError(
            f"train.engine: plain is an engine for one worker, and there are {num_ranks}. "
            "Set train.engine to auto, or cluster.workers to 1.",
            is_everywhere=True,
        )
    return "plain" if may_be_plain(config, num_ranks) else "zero3"


def may_be_plain(config: SftConfig, num_ranks: int) -> bool:
    """Whether the config leaves nothing to split: no other rank, and nothing in host memory, which only ZeRO-3 does."""
    offload = (config.deepspeed.offload_optimizer, config.deepspeed.offload_parameters)
    return config.train.engine != "zero3" and num_ranks == 1 and "cpu" not in offload
