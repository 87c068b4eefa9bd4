"""What nvidia-smi says, and what is wrong with it. The lines are as drivers of the 535 to 570 series print them."""

import os
import time
from pathlib import Path

import pytest

from launcher.preflight.findings import About
from launcher.preflight.gpu_comparison import OfferedGpus, compare_gpus, free_devices
from launcher.preflight.gpus import Gpu, GpuQueryError, parse_gpus, query_gpus
from launcher.preflight.node_facts import GpuFacts

HEALTHY = """\
0, NVIDIA H100 80GB HBM3, 535.161.08, 81559, 4, Disabled, 0
1, NVIDIA H100 80GB HBM3, 535.161.08, 81559, 4, Disabled, 0
"""
WITH_ECC_ERRORS = """\
0, NVIDIA H100 80GB HBM3, 535.161.08, 81559, 4, Disabled, 0
1, NVIDIA H100 80GB HBM3, 535.161.08, 81559, 4, Disabled, 3
"""
SPLIT = "0, NVIDIA A100-SXM4-80GB, 535.161.08, [Insufficient Permissions], [Insufficient Permissions], Enabled, [N/A]\n"
WITHOUT_ECC = "0, NVIDIA GeForce RTX 4090, 550.54.14, 24564, 311, [N/A], [N/A]\n"
SICK = "0, NVIDIA H100 80GB HBM3, 535.161.08, 81559, [Unknown Error], Disabled, [GPU requires reset]\n"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running."
)
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "535.161.08", 81559, 4, False, 0)


def test_a_healthy_gpu_is_read_with_all_its_numbers() -> None:
    assert parse_gpus(HEALTHY) == (H100, H100._replace(number=1))


def test_what_a_gpu_does_not_tell_is_unknown_and_no_fault() -> None:
    (card,) = parse_gpus(WITHOUT_ECC)
    assert card == Gpu(0, "NVIDIA GeForce RTX 4090", "550.54.14", 24564, 311, False, None)
    (split,) = parse_gpus(SPLIT)
    assert split == Gpu(0, "NVIDIA A100-SXM4-80GB", "535.161.08", None, None, True, None)


def test_what_stands_in_the_place_of_a_number_is_a_fault() -> None:
    (gpu,) = parse_gpus(SICK)
    assert (gpu.used_mib, gpu.num_ecc_errors, gpu.fault) == (None, None, "Unknown Error")


@pytest.mark.parametrize(
    "text", ["No devices were found\n", 'Field "mig.mode.current" is not a valid field to query.\n', "0, a, b\n"]
)
def test_other_words_are_passed_on(text: str) -> None:
    with pytest.raises(GpuQueryError, match=text.split()[0]):
        parse_gpus(text)


def put_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_it_is_asked_for_numbers_without_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "healthy").write_text(HEALTHY)
    put_nvidia_smi(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; exec cat {tmp_path}/healthy')
    assert len(query_gpus()) == 2
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith(
        "--query-gpu=index,name,driver_version,memory.total,memory.used,mig.mode.current,ecc.errors."
    )
    assert asked.endswith("--format=csv,noheader,nounits\n")


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, "exec sleep 60")
    started = time.monotonic()
    with pytest.raises(GpuQueryError, match=r"did not return within 0\.3 s"):
        query_gpus(timeout_seconds=0.3)
    assert time.monotonic() - started < 10


def test_one_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, f'echo "{NO_DRIVER}"; exit 9')
    with pytest.raises(GpuQueryError, match=r"exit code 9.*couldn't communicate with the NVIDIA driver"):
        query_gpus()


def test_none_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpuQueryError, match="nvidia-smi cannot be started: No such file"):
        query_gpus()


FINE = GpuFacts(parse_gpus(HEALTHY), None, "12.8", True)
ALL_FREE = OfferedGpus(2, 2)


def found(facts: dict[str, GpuFacts], offered: OfferedGpus = ALL_FREE) -> list[tuple[str, tuple[str, ...], bool]]:
    findings = compare_gpus(facts, dict.fromkeys(facts, offered))
    return [(finding.text, finding.nodes, finding.is_error) for finding in findings]


def test_healthy_and_equal_ones_are_no_finding() -> None:
    assert found({"a": FINE, "b": FINE, "c": FINE}) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (GpuFacts((), "nvidia-smi did not come back", "12.8", False), "cannot be seen: nvidia-smi did not come back"),
        (FINE._replace(cuda=None), "torch is built without CUDA"),
        (FINE._replace(torch_sees_them=False), "torch finds no GPU that it can use: it is built for CUDA 12.8"),
        (FINE._replace(gpus=FINE.gpus[:1]), "Ray counts on 2 GPUs, but nvidia-smi shows 1"),
        (FINE._replace(gpus=parse_gpus(WITH_ECC_ERRORS)), "GPU 1 (3 uncorrected memory errors)"),
        (FINE._replace(gpus=(*parse_gpus(SICK), FINE.gpus[1])), "GPU 0 (Unknown Error)"),
        (FINE._replace(gpus=(FINE.gpus[0], FINE.gpus[1]._replace(used_mib=40_000))), "GPU 1 (40,000 MiB)"),
        (FINE._replace(gpus=tuple(g._replace(total_mib=95_830) for g in FINE.gpus)), "the kind of GPU differs"),
        (FINE._replace(gpus=tuple(g._replace(name="NVIDIA A100") for g in FINE.gpus)), "the kind of GPU differs"),
        (FINE._replace(cuda="13.0"), "the build of torch differs: CUDA 12.8 on a, b; CUDA 13.0 on sick"),
    ],
)
def test_one_that_is_sick_or_other_is_an_error_of_its_node(facts: GpuFacts, words: str) -> None:
    ((text, nodes, is_error),) = found({"a": FINE, "b": FINE, "sick": facts})
    assert words in text
    assert (nodes, is_error) == (("sick",), True)


def test_another_driver_and_mig_are_warnings() -> None:
    other = FINE._replace(gpus=tuple(gpu._replace(driver="550.54.14") for gpu in FINE.gpus))
    ((text, nodes, is_error),) = found({"a": FINE, "b": FINE, "c": other})
    assert text.startswith("the driver differs: 535.161.08 on a, b; 550.54.14 on c")
    assert (nodes, is_error) == (("c",), False)
    split = GpuFacts(parse_gpus(SPLIT), None, "12.8", True)
    ((text, nodes, is_error),) = found({"a": split}, OfferedGpus(7, 7))
    assert "MIG is on for GPU 0" in text
    assert is_error is False


def test_memory_that_a_job_of_the_cluster_may_hold_is_no_finding() -> None:
    busy = FINE._replace(gpus=tuple(gpu._replace(used_mib=70_000) for gpu in FINE.gpus))
    assert found({"a": busy}, OfferedGpus(2, 0)) == []
    assert len(found({"a": busy}, OfferedGpus(2, 2))) == 1


def test_the_same_of_many_nodes_is_one_finding() -> None:
    blind = GpuFacts((), "nvidia-smi cannot be started: No such file or directory", "12.8", False)
    findings = compare_gpus({f"node-{i}": blind for i in range(64)}, {f"node-{i}": ALL_FREE for i in range(64)})
    assert len(findings) == 1
    assert len(findings[0].nodes) == 64
    assert findings[0].about is About.GPUS
    assert len(findings[0].text) < 300


def test_only_sound_gpus_that_are_nobody_elses_are_measured() -> None:
    assert free_devices(FINE, ALL_FREE) == ["cuda:0", "cuda:1"]
    for fewer in (OfferedGpus(2, 1), OfferedGpus(1, 1), OfferedGpus(0, 0)):
        assert free_devices(FINE, fewer) == []
    assert free_devices(FINE._replace(torch_sees_them=False), ALL_FREE) == []
    assert free_devices(FINE._replace(gpus=(*parse_gpus(SICK), FINE.gpus[1])), ALL_FREE) == ["cuda:1"]
