"""What one rank of one attempt does."""

from typing import Any

from sft.config import SftConfig
from sft.ranks.torch_ranks import TorchRanks
from sft.run_folder import RunFolder
from sft.training import restarts
from sft.training.attempt import begin_attempt
from sft.training.control_signals import ControlSignals
from sft.training.prepared import Workload
from sft.training.run_context import RunContext
from sft.training.watched_run import Limits, run_watched
from sft.world import World
from tests.chaos.faults import install
from tests.forked_ranks import DONE

ENDED = 5
"""The exit code of a rank that was stopped, or whose run will not be tried again."""


def run_attempt(
    rank: int,
    size: int,
    content: dict[str, Any],
    workload: list[str | None],
    faults: list[list[dict[str, Any]]],
    spoiled_steps: list[int],
    hang_timeout_seconds: float,
) -> int:
    """Train with the faults of this rank, and return its exit code."""
    install(faults[rank], spoiled_steps)
    restarts._LONGEST_PAUSE_SECONDS = 0.1  # how long a start waits after several failures has tests of its own
    config = SftConfig.model_validate(content)
    world = World(rank, size, rank, local_size=size, sequence_parallel=config.train.sequence_parallel)
    run, ranks = RunFolder(config.run.dir), TorchRanks(world)
    attempt = begin_attempt(run, ranks)
    limits = Limits(1, -1, hang_timeout_seconds)
    context = RunContext(config, Workload.from_json(workload), attempt, ControlSignals(run.stop_file))
    end = run_watched(context, limits)
    return DONE if end == "done" else ENDED
