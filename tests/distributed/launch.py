"""Real ranks that meet over gloo, each running one function of `tests.distributed.scenarios`."""

import json
import tempfile
from pathlib import Path
from typing import Any

from sft.ranks.torch_ranks import TorchRanks
from sft.world import World
from tests.distributed import scenarios
from tests.forked_ranks import logs_of, zygote


def run_ranks(
    world_size: int, scenario: str, settings: dict[str, Any], longest_seconds: float = 240, sequence_parallel: int = 1
) -> Any:
    """What the first rank's `scenario(settings, world)` returns; fails with the output of the ranks if one failed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "rank")
        arguments = (scenario, settings, folder, sequence_parallel)
        codes = zygote().start(run_scenario, world_size, log, *arguments, longest_seconds=longest_seconds)
        assert not any(codes), f"{scenario}: the ranks ended with {codes}\n{logs_of(log)}"
        return json.loads(Path(folder, "result.json").read_text())


def run_scenario(
    rank: int, size: int, scenario: str, settings: dict[str, Any], folder: str, sequence_parallel: int = 1
) -> None:
    """The life of one rank."""
    world = World(rank, size, rank, sequence_parallel=sequence_parallel)
    result = getattr(scenarios, scenario)(settings, TorchRanks(world))
    if rank == 0:
        Path(folder, "result.json").write_text(json.dumps(result))
