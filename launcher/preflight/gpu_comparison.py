"""What is wrong with the GPUs of the nodes, alone and compared with others."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from launcher.preflight.findings import About, Finding, not_equal, same_on_many
from launcher.preflight.gpus import Gpu
from launcher.preflight.node_facts import GpuFacts

_USED_MIB = 1024
"""An idle GPU shows less: the driver keeps some for itself."""


class OfferedGpus(NamedTuple):
    """What Ray says of a node: its GPUs, and how many of them no job of the cluster holds."""

    num: int
    num_free: int


def compare_gpus(facts: Mapping[str, GpuFacts], offered: Mapping[str, OfferedGpus]) -> list[Finding]:
    """All findings; node → its facts, and what Ray offers there."""
    findings = []
    for check in (_unseen, _unusable, _missing, _sick, _used):
        findings += same_on_many(About.GPUS, {node: check(gpus, offered[node]) for node, gpus in facts.items()})
    findings += same_on_many(About.GPUS, {node: _split(gpus) for node, gpus in facts.items()}, is_error=False)
    seen = {node: of_node.gpus for node, of_node in facts.items() if of_node.gpus}

    def compare(what: str, values: Callable[[Gpu], str], remedy: str, is_error: bool) -> list[Finding]:
        by_node = {node: ", ".join(sorted({values(gpu) for gpu in gpus})) for node, gpus in seen.items()}
        return not_equal(About.GPUS, what, by_node, remedy, is_error)

    findings += compare(
        "the kind of GPU",
        kind_of,
        "All workers wait for the slowest kind, and can use no more memory than the smallest has.",
        True,
    )
    findings += compare("the driver", lambda gpu: gpu.driver, "Install the same driver on all nodes.", False)
    builds = {node: f"CUDA {of_node.cuda}" for node, of_node in facts.items() if of_node.cuda is not None}
    return findings + not_equal(About.VERSIONS, "the build of torch", builds, "Install the same one on all nodes.")


def kind_of(gpu: Gpu) -> str:
    """Model and memory."""
    return gpu.name if gpu.total_mib is None else f"{gpu.name} ({gpu.total_mib:,} MiB)"


def free_devices(facts: GpuFacts, offered: OfferedGpus) -> list[str]:
    """The GPUs of a node that may be measured: torch sees them, they are whole and sound, and no job holds any of them.

    Where the cluster has only some of a node's GPUs, the others may be somebody else's, and nothing says which.
    """
    if not facts.torch_sees_them or not offered.num_free == offered.num == len(facts.gpus):
        return []
    return [f"cuda:{gpu.number}" for gpu in facts.gpus if not gpu.is_split and gpu.fault is None]


def _unseen(facts: GpuFacts, offered: OfferedGpus) -> str | None:
    return None if facts.problem is None else f"the GPUs cannot be seen: {facts.problem}"


def _unusable(facts: GpuFacts, offered: OfferedGpus) -> str | None:
    if facts.cuda is None:
        return "torch is built without CUDA. Install the build for GPUs, or set cluster.gpus_per_worker to 0."
    if facts.gpus and not facts.torch_sees_them:
        return f"torch finds no GPU that it can use: it is built for CUDA {facts.cuda}; is the driver older than that?"
    return None


def _missing(facts: GpuFacts, offered: OfferedGpus) -> str | None:
    # Ray counts the parts of a split GPU.
    if facts.problem is not None or _split(facts) is not None or len(facts.gpus) >= offered.num:
        return None
    seen = len(facts.gpus)
    return f"Ray counts on {offered.num} GPUs, but nvidia-smi shows {seen}: one is lost, or Ray was told a wrong number"


def _sick(facts: GpuFacts, offered: OfferedGpus) -> str | None:
    sick = [f"GPU {gpu.number} ({gpu.fault})" for gpu in facts.gpus if gpu.fault is not None]
    sick += [
        f"GPU {gpu.number} ({gpu.num_ecc_errors} uncorrected memory errors)" for gpu in facts.gpus if gpu.num_ecc_errors
    ]
    return f"{', '.join(sick)}: reset or replace it; the node can be left out until then" if sick else None


def _used(facts: GpuFacts, offered: OfferedGpus) -> str | None:
    # If a job of the cluster holds some of them, the used memory may be that job's.
    if offered.num_free < offered.num:
        return None
    used = [f"GPU {gpu.number} ({gpu.used_mib:,} MiB)" for gpu in facts.gpus if (gpu.used_mib or 0) > _USED_MIB]
    return f"memory is in use by a process that Ray did not start: {', '.join(used)}. End it." if used else None


def _split(facts: GpuFacts) -> str | None:
    split = [str(gpu.number) for gpu in facts.gpus if gpu.is_split]
    if not split:
        return None
    return f"MIG is on for GPU {', '.join(split)}: NCCL does not join several parts of one GPU in a job"
