"""What a trace of torch's profiler says of a GPU: how often the host waits for it, how long it idles, what it does.

Pure functions of the events of a Chrome trace (`torch.profiler.profile.export_chrome_trace`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
_RUNTIME = {"cuda_runtime", "cuda_driver"}
_WAIT = re.compile(r"^(cuda|cu)(Stream|Device|Ctx|Event)Synchronize")
_BLOCKING_COPY = re.compile(r"^cudaMemcpy(2D)?$")
"""Without Async: the host waits in it."""

CLASSES: Final[Mapping[str, str]] = {
    "communication": r"nccl",
    "attention": r"flash|fmha|attention|softmax_warp",
    "optimizer": r"adam|lion|multi_tensor_apply|foreach",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma|splitk|\bmma\b|matmul",
    "our kernels": r"^(norm_forward|norm_backward|turn|gate_forward|gate_backward)",
    "Liger": r"liger|_rms_norm|_swiglu|_rope|_geglu",
    "softmax": r"softmax",
    "elementwise": r"elementwise|vectorized|unrolled|CatArray|copy_kernel|fill",
    "reductions": r"reduce|norm",
    "indices": r"index|gather|scatter|embedding|sort|scan",
}
"""The first whose pattern is in a kernel's name counts."""


class Event(NamedTuple):
    """One event of a trace; times in microseconds."""

    name: str
    category: str
    start: float
    duration: float


class Findings(NamedTuple):
    """What the events of some steps say."""

    num_waits: int
    """How often the host waited until the device had caught up."""
    waits: Counter[str]
    num_to_host: int
    """Copies from the device to the host."""
    num_pageable: int
    """Copies from or to memory that is not pinned: the host may wait in them unseen."""
    idle_share: float | None
    """The part of the time from the device's first event to its last in which it did nothing; None: no event."""
    shares: dict[str, float]
    """Class → its part of the time of all kernels and copies."""
    longest: list[tuple[str, float]]
    """The kernels that take longest together, with their part."""


def events_of(trace: Mapping[str, Any]) -> list[Event]:
    """The complete events of a Chrome trace."""
    return [
        Event(e["name"], e.get("cat", ""), float(e["ts"]), float(e["dur"]))
        for e in trace["traceEvents"]
        if e.get("ph") == "X" and "dur" in e
    ]


def analyse(events: Iterable[Event]) -> Findings:
    events = list(events)
    on_device = [event for event in events if event.category in _ON_DEVICE]
    # What the profiler itself waits for comes after everything.
    last = max((event.start + event.duration for event in on_device), default=float("inf"))
    waits = Counter(e.name for e in events if e.category in _RUNTIME and is_wait(e.name) and e.start <= last)
    by_class: Counter[str] = Counter()
    by_name: Counter[str] = Counter()
    for event in on_device:
        by_class[class_of(event)] += event.duration  # type: ignore[assignment]  # a Counter of floats
        by_name[event.name] += event.duration  # type: ignore[assignment]
    whole = sum(by_class.values()) or 1.0
    return Findings(
        waits.total(),
        waits,
        sum("DtoH" in e.name for e in on_device),
        sum("Pageable" in e.name for e in on_device),
        idle_share(on_device),
        {name: time / whole for name, time in by_class.most_common()},
        [(name, time / whole) for name, time in by_name.most_common(8)],
    )


def is_wait(name: str) -> bool:
    """Whether the host stands still in this call until the device has caught up."""
    return bool(_WAIT.match(name) or _BLOCKING_COPY.match(name))


def class_of(event: Event) -> str:
    if event.category != "kernel":
        return "copies"
    name = event.name
    return next((kind for kind, pattern in CLASSES.items() if re.search(pattern, name, re.IGNORECASE)), "other")


def idle_share(on_device: Sequence[Event]) -> float | None:
    """See `Findings`; events of several streams may overlap."""
    if not on_device:
        return None
    in_order = sorted(on_device, key=lambda event: event.start)
    first, busy_until, busy = in_order[0].start, in_order[0].start, 0.0
    for event in in_order:
        end = event.start + event.duration
        busy += max(0.0, end - max(event.start, busy_until))
        busy_until = max(busy_until, end)
    return 1 - busy / (busy_until - first) if busy_until > first else 0.0
