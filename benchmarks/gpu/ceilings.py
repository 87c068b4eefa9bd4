"""Part 0: the versions, and what this card can do at most: a matrix product, copies in its memory and over its bus."""

import importlib.metadata
import platform
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.cases import each
from benchmarks.gpu.part import Row, Setting, Value
from benchmarks.gpu.timing import seconds_of
from sft.sizing.gpus import GPUS, kind_of

_PACKAGES = (
    *("torch", "transformers", "deepspeed", "triton", "liger-kernel", "flash-attn", "flash-attn-3"),
    *("pydantic", "accelerate", "safetensors", "numpy"),
)
_MIB = 1024**2


def run(setting: Setting) -> Iterator[Row]:
    yield Row("versions", _versions())
    yield Row("device", _device(setting))
    cases = {"matrix product": lambda: _product(setting), "copies": lambda: _copies(setting)}
    yield from each(setting, cases, seconds=3)


def _versions() -> dict[str, Value]:
    found: dict[str, Value] = {"python": platform.python_version(), "CUDA": torch.version.cuda}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _device(setting: Setting) -> dict[str, Value]:
    if not setting.on_gpu:
        return {"name": platform.processor() or platform.machine(), "threads": float(torch.get_num_threads())}
    properties, (free, _) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()
    kind = kind_of(properties.name)
    return {
        "name": properties.name,
        "kind": kind,
        "capability": f"{properties.major}.{properties.minor}",
        "GiB": properties.total_memory / 1024**3,
        "GiB free": free / 1024**3,
        "TFLOP/s by data sheet": GPUS[kind].teraflops if kind else None,
    }


def product_teraflops(setting: Setting) -> float:
    """10¹² operations a second of a bfloat16 product of square matrices."""
    size = 128 if setting.small else 8192
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=setting.device) for _ in range(2))
    return 2 * size**3 / seconds_of(setting, lambda: a @ b, 2 if setting.small else 20, warm_up=3) / 1e12


def _product(setting: Setting) -> Iterator[Row]:
    found = product_teraflops(setting)
    kind = kind_of(torch.cuda.get_device_name()) if setting.on_gpu else None
    share = found / GPUS[kind].teraflops if kind else None
    yield Row("bfloat16 product, 8192³", {"TFLOP/s": found, "share of the data sheet": share})


def _copies(setting: Setting) -> Iterator[Row]:
    size = (1 if setting.small else 1024) * _MIB
    source = torch.zeros(size, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    seconds = seconds_of(setting, lambda: target.copy_(source), 3)
    yield Row("copy in the device's memory", {"GB/s, read and written": 2 * size / seconds / 1e9})
    for kind in ("pageable", "pinned") if setting.on_gpu else ("pageable",):
        host = torch.zeros(size, dtype=torch.uint8, pin_memory=kind == "pinned")
        there = seconds_of(setting, partial(target.copy_, host, non_blocking=True), 3)
        back = seconds_of(setting, partial(host.copy_, target, non_blocking=True), 3)
        rates: dict[str, Value] = {"GB/s to the device": size / there / 1e9, "GB/s back": size / back / 1e9}
        yield Row(f"copy from and to {kind} memory", rates)
