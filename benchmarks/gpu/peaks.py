"""Part 4: the most memory that steps take, beside what `sft plan` says."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from benchmarks.gpu.cases import each
from benchmarks.gpu.models import shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Row, Setting, Value, at_most
from benchmarks.gpu.timing import allocated, peak, reset_peak
from benchmarks.gpu.training import LR, Workload, alone, build_config, engine_of, micro_batches, supervised
from sft.ranks.torch_ranks import TorchRanks
from sft.sizing.memory import peak_memory
from sft.sizing.setting import Setting as Planned

_GIB = 1024**3
_BOUND = 0.10


class Case(NamedTuple):
    """A model, and how it is trained."""

    model: str
    packs: int
    recomputed: Any
    engine: str = "plain"
    kernels: str = "auto"
    pack_len: int = 2048

    def __str__(self) -> str:
        kernels = ", no kernels" if self.kernels == "none" else ""
        return f"{self.model}, {self.engine}, {self.packs} × {self.pack_len}, recomputed {self.recomputed}{kernels}"


CASES = (
    Case("Qwen2.5 0.5B", 1, "none"),
    Case("Qwen2.5 0.5B", 8, "all"),
    Case("Qwen2.5 0.5B", 8, "none"),
    Case("Qwen2.5 0.5B", 8, 0.5, "zero3"),
    Case("Qwen2.5 0.5B", 8, "none", kernels="none"),
    Case("Qwen2.5 1.5B", 1, "none"),
    Case("Qwen2.5 1.5B", 4, "none"),
    Case("Qwen2.5 1.5B", 16, "all"),
    Case("Qwen2.5 1.5B", 4, "all", "zero3"),
)


def run(setting: Setting) -> Iterator[Row]:
    cases = [Case("Qwen2.5 0.5B", 2, "none", pack_len=24)] if setting.small else CASES
    with alone(setting) as ranks:
        yield from each(setting, {str(case): partial(_measure, setting, ranks, case) for case in cases}, seconds=7)


def _measure(setting: Setting, ranks: TorchRanks, case: Case) -> Iterator[Row]:
    work = Workload(case.model, case.pack_len, case.packs)
    changes = {
        "train.packs_per_micro_batch": case.packs,
        "train.activation_checkpointing": case.recomputed,
        "train.engine": case.engine,
        "model.kernels": case.kernels,
    }
    config, shape = build_config(setting, work, changes), shape_of(setting, case.model)
    batches = micro_batches(setting, config, packs_of(case.packs, case.pack_len, shape.vocab_size))
    before = allocated(setting)
    with engine_of(config, ranks) as engine:
        reset_peak(setting)
        for _ in range(2):
            engine.train_step(batches, supervised(batches), LR)
        highest = peak(setting)
    planned = peak_memory(shape, Planned.of(config, 0, 1, setting.on_gpu, shape))
    values: dict[str, Value] = {"GiB planned": planned.total / _GIB, "when": planned.when}
    if highest is None:
        yield Row(str(case), values)
        return
    measured = highest - before
    error = planned.total / measured - 1
    values |= {"GiB measured": measured / _GIB, "error of the plan": error}
    yield Row(str(case), values, (at_most("error of the plan", abs(error), _BOUND),))
