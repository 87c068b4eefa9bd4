"""The main of one rank: `python -m tests.distributed.rank_main SCENARIO FOLDER RANK WORLD_SIZE`."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from sft.training.process import quiet_third_parties
from sft.world import World


def main() -> None:
    scenario, folder, rank, world_size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    quiet_third_parties()
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=120),
    )
    from tests.distributed import scenarios  # noqa: PLC0415  (the process group must exist before DeepSpeed)

    result = getattr(scenarios, scenario)(settings, World(rank, world_size, rank))
    if rank == 0:
        (folder / "result.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
