"""Part 3: what an engine leaves on the device when it is closed, and where its state lies while it trains."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks.gpu.cases import each
from benchmarks.gpu.models import shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Row, Setting, at_least, at_most
from benchmarks.gpu.timing import allocated
from benchmarks.gpu.training import LR, Workload, alone, build_config, engine_of, micro_batches, settled, supervised
from sft.ranks.torch_ranks import TorchRanks

_MIB = 1024**2
_LEFT_MIB = 50.0
_CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ZeRO-3": ("zero3", {}),
    "plain": ("plain", {}),
    "ZeRO-3, optimizer in host memory": ("zero3", {"deepspeed.offload_optimizer": "cpu"}),
}


def run(setting: Setting) -> Iterator[Row]:
    with alone(setting) as ranks:
        cases = {name: partial(_close, setting, ranks, name, *case) for name, case in _CASES.items()}
        yield from each(setting, cases, seconds=3)


def _close(setting: Setting, ranks: TorchRanks, name: str, engine_name: str, changes: dict[str, Any]) -> Iterator[Row]:
    work = Workload("Llama" if setting.small else "Qwen2.5 0.5B", 24 if setting.small else 2048, 1)
    config = settled(setting, build_config(setting, work, changes))
    batches = micro_batches(setting, config, packs_of(1, work.pack_len, shape_of(setting, work.model).vocab_size))
    before = allocated(setting)
    with engine_of(config, ranks, engine_name) as engine:
        engine.train_step(batches, supervised(batches), LR)
        held = allocated(setting) - before
        sizes: dict[str, int] = {}
        for shard in engine.local_state().values():
            place = shard.values.device.type
            sizes[place] = sizes.get(place, 0) + shard.values.nbytes
        del shard
    left = (allocated(setting) - before) / _MIB
    wanted = "cpu" if changes or not setting.on_gpu else "cuda"
    share = sizes.get(wanted, 0) / sum(sizes.values())
    values = {"MiB on the device": held / _MIB, "MiB left": left, f"share of the state on {wanted}": share}
    goals = (at_most("MiB left", left, _LEFT_MIB), at_least(f"share of the state on {wanted}", share, 1.0))
    yield Row(name, values, goals)
