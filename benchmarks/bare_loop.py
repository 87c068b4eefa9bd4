"""What nothing that trains the same model on the same packs is faster than: forward, backward and update, no more.

    torchrun … -m benchmarks.bare_loop CONFIG.yaml

CONFIG is a run that `sft prepare` has prepared. Each rank trains a whole model of its own on its part of each step's
packs, in turn with other sides (`benchmarks.turns`): no ZeRO, no exchange between ranks, nothing is checked, recorded
or saved. Model, attention and loss are those of the program.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.turns import Turn
from sft.data.loader import StepLoader
from sft.engine.trained_model import load_trained
from sft.job_config import load_job
from sft.training.process import quiet_third_parties
from sft.training.workload import prepare_workload, refuse_to_prepare


def main(config_file: Path) -> None:
    quiet_third_parties()
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    config = load_job(config_file, []).sft
    _, store, plans = prepare_workload(config, executor=refuse_to_prepare)
    train = config.train
    steps = plans[0].steps(size, int(train.packs_per_micro_batch))
    loader = StepLoader(store, plans[0], steps, rank)
    module = load_trained(config, config.model.path, torch.device("cpu"))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    turn, fed = Turn(), 0
    for step in range(steps.num_steps):
        if not turn.ask(fed):
            break
        fed, num_supervised = 0, loader.num_supervised_tokens(step)
        for batch in loader.micro_batches(step):
            (module(batch).sum() / num_supervised).backward()
            fed += batch.num_tokens
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and other ranks may have ended


if __name__ == "__main__":
    main(Path(sys.argv[1]))
