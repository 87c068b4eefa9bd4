"""Each GPU multiplies matrices, and the slow one is named; measured on the CPU, by the same code."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from launcher.preflight.gpu_gather import find_slow_links, pairs_in_rounds, time_all_gather
from launcher.preflight.gpu_speed import find_slow, measure_speeds
from launcher.preflight.network import Peer, open_store


@pytest.mark.long
def test_a_device_is_measured_in_a_process_of_its_own() -> None:
    speeds = measure_speeds(["cpu"])
    assert isinstance(speeds, dict)
    assert 1e-5 < speeds["cpu"] < 100


def test_the_slow_gpu_is_named_beside_the_median_of_all() -> None:
    fast = {f"cuda:{i}": 600.0 + i for i in range(8)}
    assert find_slow({"n1": fast, "n2": fast}) == []
    [finding] = find_slow({"n1": fast, "n2": {**fast, "cuda:3": 410.4}, "n3": fast})
    assert finding.nodes == ("n2",)
    assert not finding.is_error
    assert "GPU 3 410 (the median of all is 604)" in finding.text


def test_a_node_whose_gpus_cannot_compute_is_an_error() -> None:
    [finding] = find_slow({"n1": {"cuda:0": 600.0}, "n2": "the GPUs cannot multiply matrices: out of memory"})
    assert finding.is_error
    assert finding.text == "n2: the GPUs cannot multiply matrices: out of memory"
    assert find_slow({}) == []


def test_two_ranks_gather_from_each_other() -> None:
    store = open_store("127.0.0.1")
    where = Peer("127.0.0.1", store.port)
    with ThreadPoolExecutor(2) as ranks:
        speeds = list(ranks.map(lambda rank: time_all_gather("cpu", where, rank, "127.0.0.1"), range(2)))
    assert all(1e-3 < speed < 1000 for speed in speeds)


@pytest.mark.parametrize("size", range(2, 8))
def test_each_node_gathers_with_its_neighbours_and_is_in_one_pair_at_a_time(size: int) -> None:
    rounds = pairs_in_rounds([f"n{i}" for i in range(size)])
    pairs = [pair for of_round in rounds for pair in of_round]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == (size if size > 2 else 1)
    for of_round in rounds:
        nodes = [node for pair in of_round for node in pair]
        assert len(set(nodes)) == len(nodes)


def test_the_node_whose_links_are_both_slow_is_named_and_else_the_link() -> None:
    ring = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "a")]
    assert find_slow_links(dict.fromkeys(ring, 40.0)) == []
    [node] = find_slow_links({**dict.fromkeys(ring, 40.0), ("b", "c"): 11.0, ("c", "d"): 12.0})
    assert node.nodes == ("c",)
    assert "reaches 12.0 GB/s (the median is 40.0)" in node.text
    [link] = find_slow_links({**dict.fromkeys(ring, 40.0), ("b", "c"): 11.0})
    assert link.nodes == ("b", "c")
    [failed] = find_slow_links({("a", "b"): "NCCL error"})
    assert failed.is_error
