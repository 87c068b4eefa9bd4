"""How fast two nodes gather from each other between their first GPUs, over NCCL: a job's parameters travel like this.

An all-gather of all nodes is as fast as its slowest link and does not say which that is. So nodes gather in pairs, each
node with the two beside it in a ring: where both are slow, the node is.

A process of its own gathers, so nothing stays on a GPU:

    python -m launcher.preflight.gpu_gather cuda:0 ADDRESS PORT RANK OWN_ADDRESS

prints GB/s. On the CPU the same goes over gloo.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from launcher.preflight.findings import About, Finding
from launcher.preflight.gpu_process import NotMeasuredError, measure_in_process
from launcher.preflight.network import Peer, gloo_group

_COLLECTIVE_SECONDS = 60.0
_NUM_WARM, _NUM_TIMED = 2, 5
_BYTES = {"cuda": 256 * 2**20, "cpu": 2**20}
_LEAST_OF_MEDIAN = 0.7

Pair = tuple[str, str]


def pairs_in_rounds(nodes: Sequence[str]) -> list[list[Pair]]:
    """The neighbours in the ring of these nodes, in rounds in which each node is in one pair at most."""
    size = len(nodes)
    ring = [(nodes[i], nodes[(i + 1) % size]) for i in range(size if size > 2 else size - 1)]
    even, odd = ring[0 : len(ring) - len(ring) % 2 : 2], ring[1::2]
    last = ring[-1:] if len(ring) % 2 else []
    return [pairs for pairs in (even, odd, last) if pairs]


def gather_in_process(device: str, store: Peer, rank: int, own_address: str) -> float | str:
    """GB/s of the all-gather of two ranks, each in such a process; or why there is none, in words."""
    arguments = (device, store.address, str(store.port), str(rank), own_address)
    try:
        return float(measure_in_process("launcher.preflight.gpu_gather", *arguments))
    except NotMeasuredError as error:
        return str(error)


def find_slow_links(speeds: Mapping[Pair, float | str]) -> list[Finding]:
    """The nodes whose links are all slow beside the median of all pairs, single slow links, and what failed."""
    findings = [
        Finding(About.NETWORK, f"{a} and {b}: the all-gather between their GPUs failed: {why}", (a, b))
        for (a, b), why in speeds.items()
        if isinstance(why, str)
    ]
    measured = {pair: speed for pair, speed in speeds.items() if not isinstance(speed, str)}
    if len(measured) < 3:
        return findings  # two nodes have one link, and nothing to compare it with
    median = statistics.median(measured.values())
    slow = {pair: speed for pair, speed in measured.items() if speed < _LEAST_OF_MEDIAN * median}
    of_node: dict[str, list[Pair]] = {}
    for pair in measured:
        for node in pair:
            of_node.setdefault(node, []).append(pair)
    bad = {node: pairs for node, pairs in of_node.items() if len(pairs) > 1 and all(pair in slow for pair in pairs)}
    rest = "All nodes wait for the slowest link: look at its network card, cable and NCCL_IB_HCA."
    for node, pairs in bad.items():
        text = f"{node}: the all-gather with either neighbour reaches {max(slow[p] for p in pairs):.1f} GB/s"
        findings.append(Finding(About.NETWORK, f"{text} (the median is {median:.1f}). {rest}", (node,), is_error=False))
    for (a, b), speed in slow.items():
        if not {a, b} & bad.keys():
            text = f"{a} and {b}: the all-gather between them reaches {speed:.1f} GB/s (the median is {median:.1f})"
            findings.append(Finding(About.NETWORK, f"{text}. {rest}", (a, b), is_error=False))
    return findings


def time_all_gather(device: str, store: Peer, rank: int, own_address: str) -> float:
    """GB/s that this one of two ranks receives: the median of several.

    Raises:
        RuntimeError: the other rank does not come in time, or what it sent is damaged.
    """
    import torch  # noqa: PLC0415  (seconds; the driver imports this module and measures nothing)
    import torch.distributed as dist  # noqa: PLC0415  (the same)

    kind = device.partition(":")[0]
    if kind == "cuda":
        torch.cuda.set_device(device)
        c10d: Any = dist  # torch's stubs leave out both
        timeout = timedelta(seconds=_COLLECTIVE_SECONDS)
        client = c10d.TCPStore(store.address, store.port, is_master=False, timeout=timeout)
        group = c10d.ProcessGroupNCCL(client, rank, 2, timeout)
    else:
        group = gloo_group(store, rank, 2, own_address)
    own = torch.full((_BYTES[kind] // 4,), float(rank), device=device)
    found = [torch.empty_like(own) for _ in range(2)]
    seconds = []
    for _ in range(_NUM_WARM + _NUM_TIMED):
        started = time.perf_counter()
        group.allgather([found], [own]).wait()
        float(found[1 - rank][-1])  # waits for the device
        seconds.append(time.perf_counter() - started)
    if not all(bool((part == number).all()) for number, part in enumerate(found)):
        raise RuntimeError("what was gathered is wrong: data is damaged on its way")
    return _BYTES[kind] / statistics.median(seconds[_NUM_WARM:]) / 1e9


if __name__ == "__main__":
    device, address, port, number, own = sys.argv[1:]
    sys.stdout.write(json.dumps(time_all_gather(device, Peer(address, int(port)), int(number), own)) + "\n")
