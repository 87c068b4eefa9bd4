"""Part 7: how long training stands still for a checkpoint, and what page-locked memory gives."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks.gpu.cases import each
from benchmarks.gpu.models import shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Row, Setting, Value, at_most
from benchmarks.gpu.switches import all_on
from benchmarks.gpu.timing import seconds_of, synchronize
from benchmarks.gpu.training import LR, Workload, alone, build_config, engine_of, micro_batches, settled, supervised
from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.saver import CheckpointSaver
from sft.checkpoint.state_copy import StateCopier, cuda_copies
from sft.engine.engine import Engine
from sft.ranks.torch_ranks import TorchRanks

_STALL_BOUND = 0.1
_STEPS_AFTER = 4


def run(setting: Setting) -> Iterator[Row]:
    work = Workload("Qwen2.5 0.5B", 24, 1) if setting.small else Workload("Qwen2.5 0.5B", 2048, 16)
    config = settled(setting, build_config(setting, work, {**all_on(), "checkpoint.keep_last": 1}))
    vocabulary = shape_of(setting, work.model).vocab_size
    batches = micro_batches(setting, config, packs_of(work.packs_per_step, work.pack_len, vocabulary))
    with alone(setting) as ranks, engine_of(config, ranks) as engine:
        step = partial(engine.train_step, batches, supervised(batches), LR)
        step()
        cases = {
            "pageable against pinned": partial(_copies, setting, engine),
            "a save": partial(_save, setting, ranks, engine, step, config),
        }
        yield from each(setting, cases, seconds=4)


def _copies(setting: Setting, engine: Engine) -> Iterator[Row]:
    state = engine.local_state()
    size = sum(shard.values.nbytes for shard in state.values())
    kinds: Mapping[str, Callable[..., Any]] = {"pageable": lambda device: None, "pinned": cuda_copies}
    values: dict[str, Value] = {"GB": size / 1e9}
    for name, copies_of in kinds.items():
        copier = StateCopier(print, copies_of)
        copier.prepare(state)
        synchronize(setting)
        started = time.perf_counter()
        copied = copier.copy(state)
        held = time.perf_counter() - started
        copied.wait()
        values |= {f"{name}: s in all": time.perf_counter() - started, f"{name}: s of training": held}
        copier.close()
        del copied
    yield Row("copy of the state", values)


def _save(setting: Setting, ranks: TorchRanks, engine: Engine, step: Callable[[], Any], config: Any) -> Iterator[Row]:
    usual = seconds_of(setting, step, 1 if setting.small else 3)
    said: list[str] = []
    saver = CheckpointSaver(LocalStorage(setting.folder / "checkpoints"), ranks, 1, config.checkpoint, said.append)
    try:
        # The first save makes the memory that the others use again.
        saver.save(1, engine.local_state(), {"num_updates": 1})
        saver.finish()
        held = saver.save(2, engine.local_state(), {"num_updates": 2})
        after = [seconds_of(setting, step, 1, warm_up=0) for _ in range(_STEPS_AFTER)]
        started = time.perf_counter()
        is_saved = saver.finish()
        waited = time.perf_counter() - started
    finally:
        saver.close()
    longer = sum(max(0.0, seconds - usual) for seconds in after)
    stall = (held + longer) / usual
    values: dict[str, Value] = {
        "ms a step": 1000 * usual,
        "ms held by the save": 1000 * held,
        f"ms more in the {_STEPS_AFTER} steps after": 1000 * longer,
        "s to be written after them": waited,
        "published": "yes" if is_saved else f"no: {'; '.join(said)}",
    }
    goals = (at_most("stall, in steps", stall, _STALL_BOUND),) if setting.on_gpu else ()
    yield Row("a save while training goes on", values, goals)
