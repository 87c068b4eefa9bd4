"""What torch's flight recorder knows of a rank's last collectives, and in words in which one it waits.

torch keeps the last collectives of NCCL, and since torch 2.13 of gloo, in memory (`sft.training.worker_variables` says
how many). A build without it has nothing to tell. Read as JSON: nothing is unpickled.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

_NAMES = ("_dump_nccl_trace_json", "_dump_fr_trace_json")
"""torch's functions for it: of NCCL, in builds with it, and of all other backends."""


def read_trace(on_gpu: bool) -> dict[str, Any] | None:
    """The recorded collectives, as torch gives them; None if nothing is recorded.

    Args:
        on_gpu: whether the ranks use NCCL.
    """
    # A rank that never loaded torch has no collectives, and to load it now would take seconds.
    torch_part: Any = sys.modules.get("torch._C._distributed_c10d")
    dump = getattr(torch_part, _NAMES[0 if on_gpu else 1], None)
    if dump is None:
        return None
    trace: dict[str, Any] = json.loads(dump(includeCollectives=True, onlyActive=False))
    return trace if trace.get("entries") else None


def waiting_in(trace: Mapping[str, Any]) -> str | None:
    """The first collective that has begun and not ended: `all_gather 57 of group 0, 2 x 1024 Float`; None if all have.

    The number counts the collectives of a group, so ranks with another number are not in the same one.
    """
    open_ones = [e for e in trace["entries"] if not e.get("retired") and e.get("state") != "completed"]
    if not open_ones:
        return None
    first = min(open_ones, key=lambda entry: int(entry["record_id"]))
    name = str(first["profiling_name"]).rpartition(":")[2]
    shapes = [" x ".join(map(str, size)) or "1" for size in first.get("input_sizes", ())]
    kinds = first.get("input_dtypes", ())
    what = ", ".join(f"{shape} {kind}" for shape, kind in zip(shapes[:1], kinds[:1], strict=True))
    begun = ", not yet on the GPU" if first.get("state") == "scheduled" and "nccl" in first["profiling_name"] else ""
    group = first["process_group"][0]
    return f"{name} {first['collective_seq_id']} of group {group}{f', {what}' if what else ''}{begun}"
