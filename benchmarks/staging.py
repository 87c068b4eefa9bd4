"""What `data.staging: node_local` moves to each node, before and after a change of size, and what it costs to read.

usage: python benchmarks/staging.py [--examples 200000] [--pack-len 4096] [--packs-per-step 64] [--folder DIR]

A token store of random tokens with log-normal lengths (median 128), each example once. A node is a folder with a disk
of its own only in name: all lie on the disk of DIR, as does the store, so times say what the code costs there, not what
a network costs. Every node has eight ranks; they fetch one after another.

    fetched      bytes of packs that came to the node's disk
    read for it  by the process in all, as /proc says, where nothing lay there
    there        bytes of packs that lay there and passed their hash
    packs/s      while it fetched or checked
    read         of packs in the order of the steps, by one rank of eight, with nothing of the files in memory (cold:
                 dropped from the page cache by posix_fadvise) and with all of it (warm)
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sft.atomic_files import publish_folder, written_aside
from sft.data.planning.pack_plan import PackPlan, publish_plan
from sft.data.planning.packing import pack_order
from sft.data.staged_packs import StagedPacks, staging_root
from sft.data.staging import StagingOrder, StagingReport, fetch_packs
from sft.data.token_store import TokenStore
from sft.schema import Pack
from sft.step_plan import real_packs

RANKS_PER_NODE = 8
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--pack-len", type=int, default=4096)
    parser.add_argument("--packs-per-step", type=int, default=64)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        store, plan = make(folder, options)
        print(f"{len(store):,} examples, {len(store.tokens):,} tokens, {len(plan):,} packs of {options.pack_len}, "
              f"{options.packs_per_step} a step")  # fmt: skip
        print(f"{'nodes':>6} {'from step':>10} {'node':>5} {'fetched, MB':>12} {'read for it, MB':>16} "
              f"{'there, MB':>10} {'packs/s':>9}")  # fmt: skip
        num_steps = plan.steps().num_steps
        for num_nodes in (1, 2, 4):
            for node in range(num_nodes):
                fetch(folder, f"{num_nodes}-nodes", node, num_nodes, 0)
        print("from 2 nodes on to 1, then to 3, a quarter of the steps later each time")
        for num_nodes, first_step in ((1, num_steps // 4), (3, num_steps // 2)):
            for node in range(num_nodes):
                fetch(folder, "2-nodes", node, num_nodes, first_step)
        measure_reads(folder, store, plan)


def make(folder: Path, options: argparse.Namespace) -> tuple[TokenStore, PackPlan]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(128), 1.0, options.examples), 8, options.pack_len).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rng.integers(0, 50_000, offsets[-1], dtype=np.uint16)
    loss_mask = rng.random(offsets[-1], np.float32) < 0.5
    loss_mask[offsets[:-1]] = False
    arrays = {"offsets": offsets, "tokens": tokens, "loss_mask": loss_mask}
    with written_aside(folder / "store", "benchmark") as aside:
        for name in TokenStore.__dataclass_fields__.keys() - {"path", "manifest"}:
            np.save(aside / f"{name}.npy", arrays.get(name, np.zeros(options.examples, np.int32)))
        publish_folder(aside, folder / "store", {"kind": "token_store", "tasks": ["t"]})
    store, order = TokenStore.open(folder / "store"), rng.permutation(options.examples)
    packed = pack_order(
        lengths[order], order, np.zeros(len(order), np.int32), options.pack_len, options.packs_per_step, seed=1
    )
    inputs = {"packs_per_step": options.packs_per_step}
    manifest = {"kind": "stage_plan", "num_packs": len(packed[1]) - 1, "inputs": inputs}
    publish_plan(folder / "packs", order, packed, store, manifest)
    return store, PackPlan.open(folder / "packs")


def fetch(folder: Path, disks: str, node: int, num_nodes: int, first_step: int) -> StagingReport:
    order = StagingOrder(
        node=f"n{node}",
        ranks=range(node * RANKS_PER_NODE, (node + 1) * RANKS_PER_NODE),
        world_size=num_nodes * RANKS_PER_NODE,
        packs_per_micro_batch=1,
        first_step=first_step,
        store=folder / "store",
        plan=folder / "packs",
        staging_dir=str(folder / disks / f"node-{node}"),
        report=folder / "report.json",
    )
    before = bytes_read()
    found = fetch_packs(order, least_free_share=0.0)
    assert found.is_complete, found.why_stopped
    # What lies there is read, too, to check it.
    read = "-" if found.num_there else f"{(bytes_read() - before) / MB:.1f}"
    print(f"{num_nodes:>6} {first_step:>10,} {node:>5} {found.bytes_fetched / MB:12.1f} {read:>16} "
          f"{found.bytes_there / MB:10.1f} {(found.num_fetched + found.num_there) / found.seconds:9,.0f}",
          flush=True)  # fmt: skip
    return found


def measure_reads(folder: Path, store: TokenStore, plan: PackPlan) -> None:
    staged = StagedPacks(staging_root(str(folder / "1-nodes" / "node-0")), plan, store)
    steps = plan.steps(RANKS_PER_NODE)
    packs = [pack for step in range(steps.num_steps) for pack in real_packs(steps.rank_packs(step, 3))]
    sources: tuple[tuple[str, Callable[[int], Pack | None], Iterable[Path]], ...] = (
        (
            "direct",
            lambda pack: plan.read_pack(pack, store),
            [*(folder / "store").iterdir(), *(folder / "packs").iterdir()],
        ),
        ("staged", staged.read, [*staged.folder.iterdir()]),
    )
    for name, read, files in sources:
        drop(files)
        cold, warm = timed(read, packs), timed(read, packs)
        print(f"{name}: {len(packs):,} packs of a rank, {cold:.3f} ms each cold, {warm:.3f} warm", flush=True)


def timed(read: Callable[[int], Pack | None], packs: list[int]) -> float:
    """Milliseconds a pack."""
    started = time.perf_counter()
    for pack in packs:
        assert read(pack) is not None
    return 1000 * (time.perf_counter() - started) / len(packs)


def drop(paths: Iterable[Path]) -> None:
    """Take the files out of the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def bytes_read() -> int:
    """By this process so far, from files in memory or not."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar:")))


if __name__ == "__main__":
    main()
