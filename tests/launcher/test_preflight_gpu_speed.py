"""Each GPU multiplies matrices, and the slow one is named; measured on the CPU, by the same code."""

from launcher.preflight.gpu_speed import find_slow, measure_in_process


def test_a_device_is_measured_in_a_process_of_its_own() -> None:
    speeds = measure_in_process(["cpu"])
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
