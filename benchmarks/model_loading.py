"""What each rank reads of a model's files, and the memory that it takes, when ZeRO-3's shards are loaded.

    python benchmarks/model_loading.py --ranks 1 2 4

A Llama with random weights (by default 1.24 B parameters, bfloat16, five files) is loaded by real ranks over gloo:

    by the first rank   as transformers does it: the first rank reads all, and hands out the parts
    in own parts        as the program does it at the start of a run
    on a resume         as it does it where a checkpoint brings the trained parameters

    asked for, MiB      by a rank with read calls (`rchar` of /proc/self/io), which does not count mapped files
    from the disk, MiB  by a rank (`read_bytes`, which counts pages of mapped files, and those that the system reads
                        ahead for others); before each row the files' pages are dropped from the system's memory, so
                        --folder has to lie on a disk, not in memory
    peak, MiB           the largest resident size of a rank (VmHWM), with pages of mapped files, above that before
    seconds             until the last rank has loaded its part

A small model is loaded first, so that code that is loaded late does not count. Of the ranks after the first, the
largest number is shown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from sft.world import World

MIB = 1 << 20
WAYS = ("by the first rank", "in own parts", "on a resume")
LARGE = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
SMALL = {**LARGE, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--layers", type=int, default=LARGE["num_hidden_layers"])
    parser.add_argument("--folder", type=Path, help="where the model is made; default: a temporary folder")
    parser.add_argument("--rank", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        run_rank(Path(options.rank[0]), int(options.rank[1]), int(options.rank[2]), options.rank[3])
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        files = write_models(Path(folder), options.layers)
        total = sum(file.stat().st_size for file in files)
        print(f"{len(files)} files, {total / MIB:,.0f} MiB\n")
        print("| ranks | loaded | asked for, MiB: first rank | another | from disk, MiB: first rank | another | all "
              "| peak, MiB: first rank | another | seconds |\n|---:|---|" + "---:|" * 8)  # fmt: skip
        for num_ranks in options.ranks:
            for way in WAYS:
                drop_caches(files)
                print(row(num_ranks, way, measure(Path(folder), num_ranks, way)), flush=True)


def row(num_ranks: int, way: str, found: list[dict[str, float]]) -> str:
    asked, read, peak = ([one[key] / MIB for one in found] for key in ("asked", "read", "peak"))
    cells = [str(num_ranks), way]
    for values in (asked, read, peak):
        cells += [f"{values[0]:,.0f}", f"{max(values[1:]):,.0f}" if values[1:] else ""]
        cells += [f"{sum(values):,.0f}"] if values is read else []
    cells.append(f"{max(one['seconds'] for one in found):.1f}")
    return f"| {' | '.join(cells)} |"


def write_models(folder: Path, num_layers: int) -> list[Path]:
    """Both models, by a process that ends; the files of the large one."""
    code = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
for name, content in json.loads(sys.argv[2]).items():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **content), dtype=torch.bfloat16)
    model.save_pretrained(f"{sys.argv[1]}/{name}", max_shard_size="600MB")
"""
    models = {"large": {**LARGE, "num_hidden_layers": num_layers}, "small": SMALL}
    subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(models)], check=True, capture_output=True)
    subprocess.run(["sync"], check=True)
    return sorted((folder / "large").glob("*.safetensors"))


def drop_caches(files: list[Path]) -> None:
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(folder: Path, num_ranks: int, way: str) -> list[dict[str, float]]:
    """What each rank measured."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    (folder / "rendezvous").unlink(missing_ok=True)
    ranks = []
    for rank in range(num_ranks):
        command = [sys.executable, __file__, "--rank", str(folder), str(rank), str(num_ranks), way]
        with (folder / f"rank-{rank}.log").open("wb") as log:
            ranks.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    try:
        failed = [rank for rank, process in enumerate(ranks) if process.wait(900)]
    finally:
        for process in ranks:
            process.kill()
    if failed:
        raise SystemExit((folder / f"rank-{failed[0]}.log").read_text()[-4000:])
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(num_ranks)]


def run_rank(folder: Path, rank: int, num_ranks: int, way: str) -> None:
    import torch  # noqa: PLC0415  (the parent process needs none of these)
    import torch.distributed as dist  # noqa: PLC0415

    from sft.config import ModelConfig, SftConfig  # noqa: PLC0415
    from sft.engine.zero3_config import build_zero3_config  # noqa: PLC0415
    from sft.model import loading  # noqa: PLC0415
    from sft.model.own_weights import Sources  # noqa: PLC0415
    from sft.ranks.agreement import meet  # noqa: PLC0415
    from sft.ranks.torch_ranks import TorchRanks  # noqa: PLC0415
    from sft.training.process import quiet_third_parties  # noqa: PLC0415

    quiet_third_parties()
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    world, patience = World(rank, num_ranks, rank), timedelta(seconds=600)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=num_ranks, timeout=patience)
    ranks = TorchRanks(world)

    def load(name: str) -> Any:
        model = ModelConfig(path=str(folder / name))
        config = SftConfig.model_validate(
            {
                "run": {"name": "loading", "dir": str(folder)},
                "model": model.model_dump(exclude_unset=True),
                "data": {"sources": [{"name": "none", "path": "none/none"}]},
                "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-4}}],
            }
        )
        settings = (model, model.path, torch.bfloat16, build_zero3_config(config, 1.0, world))
        return loading.load_model(*settings, awaits_state=way == "on a resume", tell=lambda: meet(ranks))

    as_transformers = way == "by the first rank"
    with mock.patch.object(loading, "find_sources", return_value=Sources()) if as_transformers else nullcontext():
        small = load("small")
        resident_before = of_process("status", "VmRSS")
        before = {"asked": of_process("io", "rchar"), "read": of_process("io", "read_bytes")}
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
        dist.barrier()
        started = time.perf_counter()
        large = load("large")
        seconds = time.perf_counter() - started
    peak = 1024 * (of_process("status", "VmHWM") - resident_before)
    after = {"asked": of_process("io", "rchar"), "read": of_process("io", "read_bytes")}
    found = {key: after[key] - before[key] for key in after}
    (folder / f"rank-{rank}.json").write_text(json.dumps({"seconds": seconds, "peak": peak, **found}))
    dist.barrier()
    del small, large
    dist.destroy_process_group()


def of_process(file: str, key: str) -> int:
    lines = Path(f"/proc/self/{file}").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


if __name__ == "__main__":
    main()
