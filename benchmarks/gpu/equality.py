"""Part 2: steps in bfloat16 on the card beside the same steps in float32 by the plain oracle on the CPU.

Every case trains the same weights on the same packs for two steps. What differs in it leaves the result as it is.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from benchmarks.gpu.cases import each
from benchmarks.gpu.models import TINY, shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Row, Setting, at_least, at_most
from benchmarks.gpu.training import (
    LR,
    Workload,
    alone,
    build_config,
    engine_of,
    has_liger,
    micro_batches,
    settled,
    supervised,
)
from sft.data.collate import Batch, empty_batch
from sft.engine.engine import Engine, NonFiniteError, StepResult
from sft.engine.single_process import SingleProcessEngine
from sft.model import kernels
from sft.model.kernels import count_kernels
from sft.ranks.torch_ranks import TorchRanks

LOSS_BOUND, NORM_BOUND = 2e-3, 1e-2
FLOAT32_BOUND = 1e-4
_NUM_STEPS = 2


@dataclass(frozen=True)
class Case:
    """One way to come to the same numbers."""

    model: str = "Llama"
    changes: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "zero3"
    with_kernel: str | None = None
    """The only one that is fused."""
    empty_after: bool = False
    """Whether each step ends with an empty micro-batch."""
    nan_before: bool = False
    """Whether a step comes first that is not finite."""
    is_long: bool = False
    """Whether a small run leaves it out, as another case runs the same lines."""


CASES: Mapping[str, Case] = {
    **{name: Case(name, is_long=name == "Qwen3") for name in TINY},
    "an empty micro-batch": Case(empty_after=True),
    "a step with NaN is skipped": Case(nan_before=True),
    "parameters gathered module by module": Case(changes={"deepspeed.gather": "module"}, is_long=True),
    "no kernels": Case(changes={"model.kernels": "none"}, is_long=True),
    "only the norm's kernel": Case(with_kernel="norm"),
    "only the rotary kernel": Case(with_kernel="rotary", is_long=True),
    "only the gate's kernel": Case(with_kernel="gated", is_long=True),
    "optimizer in host memory": Case(changes={"deepspeed.offload_optimizer": "cpu"}, is_long=True),
    "all in host memory": Case(
        changes={"deepspeed.offload_optimizer": "cpu", "deepspeed.offload_parameters": "cpu"}, is_long=True
    ),
    "no activation is computed again": Case(changes={"train.activation_checkpointing": "none"}, is_long=True),
    "all are, from the host": Case(
        changes={"train.activation_checkpointing": "all", "train.offload_activations": "cpu"}, is_long=True
    ),
    "the plain engine": Case(engine="plain"),
    "the plain engine, Mixtral": Case("Mixtral", engine="plain", is_long=True),
    "Liger's kernels": Case(changes={"model.kernels": "liger"}, is_long=True),
    "float32": Case(changes={"model.dtype": "float32"}, is_long=True),
    "float32, the plain engine": Case(changes={"model.dtype": "float32"}, engine="plain", is_long=True),
}


def run(setting: Setting) -> Iterator[Row]:
    reference.cache_clear()
    chosen = {name: case for name, case in CASES.items() if not (setting.small and case.is_long)}
    if not has_liger():
        chosen.pop("Liger's kernels", None)
        yield Row("Liger's kernels", {"left out": "liger-kernel is not installed"})
    with alone(setting) as ranks:
        yield from each(setting, {name: partial(_compare, setting, ranks, name, c) for name, c in chosen.items()}, 3)


def _work(setting: Setting, model: str) -> Workload:
    return Workload(model, pack_len=24 if setting.small else 512, packs_per_step=2 if setting.small else 4)


def _batches(setting: Setting, work: Workload, config: Any) -> list[Batch]:
    packs = packs_of(work.packs_per_step, work.pack_len, shape_of(setting, work.model).vocab_size)
    return micro_batches(setting, config, packs)


@cache
def reference(setting: Setting, model: str) -> tuple[StepResult, ...]:
    """The steps in float32 on the CPU."""
    work = _work(setting, model)
    config = build_config(setting, work, {"model.dtype": "float32", "train.packs_per_micro_batch": 1})
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    found = _steps(engine, _batches(setting, work, config))
    engine.close()
    return tuple(found)


def _steps(engine: Engine, batches: Sequence[Batch]) -> list[StepResult]:
    return [engine.train_step(batches, supervised(batches), LR) for _ in range(_NUM_STEPS)]


def _compare(setting: Setting, ranks: TorchRanks, name: str, case: Case) -> Iterator[Row]:
    work = _work(setting, case.model)
    changes = {"train.packs_per_micro_batch": 2, **case.changes}
    config = settled(setting, build_config(setting, work, changes))
    batches = _batches(setting, work, config)
    if case.empty_after:
        batches.append(empty_batch("packed"))
    only: AbstractContextManager[None] = only_kernel(case.with_kernel) if case.with_kernel else nullcontext()
    with only, engine_of(config, ranks, case.engine) as engine:
        if case.nan_before:
            _fail(engine, batches)
        found = _steps(engine, batches)
        fused = sum(count_kernels(engine.hf_model).values())
    expected = reference(setting, case.model)
    pairs = list(zip(found, expected, strict=True))
    loss = max(abs(f.loss / e.loss - 1) for f, e in pairs)
    norm = max(abs(f.grad_norm / e.grad_norm - 1) for f, e in pairs)
    is_exact = config.model.dtype == "float32"
    goals = [
        at_most("loss", loss, FLOAT32_BOUND if is_exact else LOSS_BOUND),
        at_most("norm", norm, FLOAT32_BOUND if is_exact else NORM_BOUND),
    ]
    if setting.on_gpu and config.model.kernels != "none":
        goals.append(at_least("modules with a kernel", fused, 1))
    yield Row(name, {"loss, relative error": loss, "norm": norm, "fused modules": float(fused)}, tuple(goals))


def _fail(engine: Engine, batches: Sequence[Batch]) -> None:
    """A step whose embeddings are not finite: it must raise, and leave everything as it was."""
    spoil: Callable[..., Any] = lambda module, given, made: made * math.nan  # noqa: E731
    hook = engine.hf_model.get_input_embeddings().register_forward_hook(spoil)
    try:
        engine.train_step(batches, supervised(batches), LR)
    except NonFiniteError:
        return
    finally:
        hook.remove()
    raise AssertionError("a step with NaN made an update")


@contextmanager
def only_kernel(name: str) -> Iterator[None]:
    """Inside, models get this one of our kernels, and the definitions in the place of the others."""
    before = kernels.OURS
    changed = {name, "gated_halves"} if name == "gated" else {name}
    kernels.OURS = kernels.DEFINITIONS._replace(**{each: getattr(before, each) for each in changed})
    try:
        yield
    finally:
        kernels.OURS = before
