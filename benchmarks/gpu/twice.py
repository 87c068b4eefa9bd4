"""Part 9: the same steps twice: equal to the bit with `train.deterministic`, and what that costs."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.cases import each
from benchmarks.gpu.models import shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Row, Setting, Value, at_least
from benchmarks.gpu.timing import seconds_of
from benchmarks.gpu.training import LR, Workload, alone, build_config, engine_of, micro_batches, settled, supervised
from sft.ranks.torch_ranks import TorchRanks
from sft.training.determinism import choose_deterministic, choose_experts

_NUM_STEPS = 3


class Run(NamedTuple):
    """What a run came to."""

    losses: list[float]
    norms: list[float]
    digests: list[tuple[int, int]]
    """Of the whole state, tensor by tensor."""
    seconds: float


def run(setting: Setting) -> Iterator[Row]:
    models = ("Llama",) if setting.small else ("Llama", "Mixtral", "Qwen2.5 0.5B")
    with alone(setting) as ranks:
        usual = {f"{model}, as usual": partial(_twice, setting, ranks, model, False) for model in models}
        yield from each(setting, usual, seconds=2)
        # It holds for the process, so it comes last.
        choose_deterministic()
        try:
            exact = {f"{model}, deterministic": partial(_twice, setting, ranks, model, True) for model in models}
            yield from each(setting, exact, seconds=2)
        finally:
            torch.use_deterministic_algorithms(False)


def _twice(setting: Setting, ranks: TorchRanks, model: str, deterministic: bool) -> Iterator[Row]:
    first, second = (_run(setting, ranks, model, deterministic) for _ in range(2))
    is_equal = first[:3] == second[:3]
    difference = max(abs(a / b - 1) for a, b in zip(first.losses, second.losses, strict=True))
    goals = (at_least("equal to the bit", float(is_equal), 1.0),) if deterministic or not setting.on_gpu else ()
    values: dict[str, Value] = {
        "equal": str(is_equal),
        "losses differ by": difference,
        "ms a step": 1000 * second.seconds,
    }
    yield Row(f"{model}, {'deterministic' if deterministic else 'as usual'}", values, goals)


def _run(setting: Setting, ranks: TorchRanks, model: str, deterministic: bool) -> Run:
    work = Workload(model, 24, 1) if setting.small else Workload(model, 2048, 2)
    config = settled(setting, build_config(setting, work, {"train.deterministic": deterministic}))
    batches = micro_batches(
        setting, config, packs_of(work.packs_per_step, work.pack_len, shape_of(setting, model).vocab_size)
    )
    with engine_of(config, ranks) as engine:
        if deterministic:
            choose_experts(engine.hf_model)
        steps = []
        once = lambda: steps.append(engine.train_step(batches, supervised(batches), LR))  # noqa: E731
        seconds = seconds_of(setting, once, 1 if setting.small else _NUM_STEPS - 1)
        digest = [_digest(shard.values) for _, shard in sorted(engine.local_state().items())]
    return Run([s.loss for s in steps], [s.grad_norm for s in steps], digest, seconds)


def _digest(values: Tensor) -> tuple[int, int]:
    """Of the bits, on the device: whole numbers have the same sum in any order."""
    bits = values.detach().contiguous().view(torch.int32).long()
    return int(bits.sum()), int((bits * bits).sum())
