"""Environment variables of a process that trains: torch, cuBLAS and NCCL read them when CUDA or the group starts.

A variable that is set already keeps its value: the user's own counts, on each node.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Final

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""The allocator's settings; the second is its name before torch 2.9, which still counts."""

_REGISTERS_MEMORY = "TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK"
"""If set, NCCL registers the allocator's segments once, and torch refuses segments that grow."""

_RECORDER = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
"""How many collectives torch's flight recorder keeps; the second is its name before torch 2.9."""
_NUM_RECORDED = 2000

_DETERMINISTIC: Final = {
    # With a workspace of its own for each stream, cuBLAS takes the same algorithm each time (cuBLAS, "Results
    # reproducibility").
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Switches that add up (NVLink SHARP) do it in the order in which the parts arrive.
    "NCCL_ALGO": "^NVLS",
}


def missing_variables(environment: Mapping[str, str], deterministic: bool) -> dict[str, str]:
    """What is to be set beside what is there."""
    missing = {}
    if not any(name in environment for name in _ALLOCATOR) and environment.get(_REGISTERS_MEMORY, "0") in ("0", ""):
        # Segments that grow: packs of other lengths in each step would leave gaps that nothing fits into.
        missing[_ALLOCATOR[0]] = "expandable_segments:True"
    if not any(name in environment for name in _RECORDER):
        missing[_RECORDER[0]] = str(_NUM_RECORDED)
    if deterministic:
        missing |= {name: value for name, value in _DETERMINISTIC.items() if name not in environment}
    return missing


def set_variables(deterministic: bool, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what is missing in this process. Call it before anything starts CUDA or the process group."""
    environment.update(missing_variables(environment, deterministic))
