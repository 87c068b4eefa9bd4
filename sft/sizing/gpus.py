"""Memory and bfloat16 arithmetic (without sparsity) of well-known GPUs, from the makers' data sheets.

Data sheets give memory in GB but mean GiB, and the driver keeps some: the sizes here are a little less. For GeForce
cards, the arithmetic is that with float32 accumulation.
"""

from typing import Literal, NamedTuple

GpuKind = Literal[
    "a10", "a100-40gb", "a100-80gb", "b200", "h100-80gb", "h100-pcie", "h200",
    "l4", "l40s", "mi300x", "rtx3090", "rtx4090",
]  # fmt: skip
"""The kinds of GPUs that are known here."""


class Gpu(NamedTuple):
    """One kind of GPU."""

    memory_gib: float
    """Usable, in GiB (1024³ bytes)."""
    teraflops: float
    """10¹² floating-point operations a second, dense bfloat16."""
    source: str


GPUS: dict[GpuKind, Gpu] = {
    "a10": Gpu(22.0, 125.0, "NVIDIA A10 data sheet: 24 GB"),
    "a100-40gb": Gpu(39.4, 312.0, "NVIDIA A100 data sheet: 40 GB"),
    "a100-80gb": Gpu(79.2, 312.0, "NVIDIA A100 data sheet: 80 GB"),
    "b200": Gpu(178.0, 2250.0, "NVIDIA HGX B200 data sheet: 180 GB, 4.5 petaflops with sparsity"),
    "h100-80gb": Gpu(79.2, 989.4, "NVIDIA H100 data sheet, SXM: 80 GB, 1,979 teraflops with sparsity"),
    "h100-pcie": Gpu(79.2, 756.5, "NVIDIA H100 data sheet, PCIe: 80 GB, 1,513 teraflops with sparsity"),
    "h200": Gpu(139.8, 989.4, "NVIDIA H200 data sheet, SXM: 141 GB, 1,979 teraflops with sparsity"),
    "l4": Gpu(22.0, 121.0, "NVIDIA L4 data sheet: 24 GB, 242 teraflops with sparsity"),
    "l40s": Gpu(44.5, 362.1, "NVIDIA L40S data sheet: 48 GB, 733 teraflops with sparsity"),
    "mi300x": Gpu(191.5, 1307.4, "AMD Instinct MI300X data sheet: 192 GB"),
    "rtx3090": Gpu(23.6, 71.2, "NVIDIA GA102 white paper: 24 GB"),
    "rtx4090": Gpu(23.6, 165.2, "NVIDIA Ada white paper: 24 GB"),
}


_NAMES: dict[str, GpuKind] = {
    "A100-SXM4-40GB": "a100-40gb",
    "A100-PCIE-40GB": "a100-40gb",
    "A100-SXM4-80GB": "a100-80gb",
    "A100 80GB PCIe": "a100-80gb",
    "H100 80GB HBM3": "h100-80gb",
    "H100 PCIe": "h100-pcie",
    "GeForce RTX 3090": "rtx3090",
    "GeForce RTX 4090": "rtx4090",
    "H200": "h200",
    "B200": "b200",
    "L40S": "l40s",
    "L4": "l4",
    "A10": "a10",
    "AMD Instinct MI300X": "mi300x",
}
"""The drivers' names, without the prefix NVIDIA."""


def kind_of(device_name: str) -> GpuKind | None:
    """The kind of the device with this name; None if it is not known here."""
    return _NAMES.get(device_name.removeprefix("NVIDIA "))
