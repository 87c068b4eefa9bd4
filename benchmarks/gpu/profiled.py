"""Part 6: two steps under torch's profiler: waits of the host, idle time of the GPU, and where its time goes.

A step of four micro-batches and a step of one tell waits of a micro-batch from those of a step. Idle time is that of
the whole trace, with the profiler's own cost in it.
"""

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.models import shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Goal, Row, Setting, Value, at_most
from benchmarks.gpu.switches import all_on
from benchmarks.gpu.timing import synchronize
from benchmarks.gpu.trace import Findings, analyse, events_of
from benchmarks.gpu.training import LR, Workload, alone, build_config, engine_of, micro_batches, settled, supervised
from sft.ranks.torch_ranks import TorchRanks

_MODEL = "Qwen2.5 0.5B"
_WAITS_OF_STEP, _WAITS_OF_MICRO_BATCH = 4, 1
_IDLE_BOUND = 0.05
_MANY = 4


def run(setting: Setting) -> Iterator[Row]:
    with alone(setting) as ranks:
        work = Workload(_MODEL, 24, _MANY) if setting.small else Workload(_MODEL, 2048, 16)
        engines = ("plain",) if setting.small else ("plain", "zero3")
        for engine_name in engines:
            of_one = _profile(setting, ranks, work, engine_name, work.packs_per_step)
            of_many = _profile(setting, ranks, work, engine_name, work.packs_per_step // _MANY)
            each = (of_many.num_waits - of_one.num_waits) / (_MANY - 1) / 2
            of_step = of_one.num_waits / 2 - each
            goals: tuple[Goal, ...] = ()
            # One GPU trains with the plain engine; ZeRO-3 is there to compare.
            is_goal = engine_name == "plain"
            if setting.on_gpu and is_goal:
                goals = (
                    at_most("waits a micro-batch", each, _WAITS_OF_MICRO_BATCH),
                    at_most("waits a step besides", of_step, _WAITS_OF_STEP),
                )
            values: dict[str, Value] = {"a micro-batch": each, "a step besides": of_step}
            values["which"] = ", ".join(f"{name} {n}" for name, n in of_many.waits.items())
            yield Row(f"{engine_name}: waits of the host", values, goals)
            yield from _rows(f"{engine_name}, one micro-batch", of_one, is_goal)
            yield from _rows(f"{engine_name}, {_MANY} micro-batches", of_many, is_goal=False)


def _profile(setting: Setting, ranks: TorchRanks, work: Workload, engine: str, packs: int) -> Findings:
    """Two steps of micro-batches of so many packs."""
    changes: dict[str, Any] = {**all_on(), "train.packs_per_micro_batch": packs, "train.engine": engine}
    config = settled(setting, build_config(setting, work, changes))
    vocabulary = shape_of(setting, work.model).vocab_size
    batches = micro_batches(setting, config, packs_of(work.packs_per_step, work.pack_len, vocabulary))
    # CPU operators are left out where there is a GPU: to record them slows the host down.
    activity = ProfilerActivity.CUDA if setting.on_gpu else ProfilerActivity.CPU
    with engine_of(config, ranks) as engine_:
        step = partial(engine_.train_step, batches, supervised(batches), LR)
        for _ in range(1 if setting.small else 2):
            step()
        synchronize(setting)
        with profile(activities=[activity]) as profiled:
            step()
            step()
            while setting.on_gpu and not torch.cuda.current_stream().query():
                time.sleep(0.002)  # to wait otherwise would count as a wait
    file = setting.folder / "trace.json"
    profiled.export_chrome_trace(str(file))
    return analyse(events_of(json.loads(file.read_text())))


def _pageable(found: Findings) -> dict[str, Value]:
    return {"copies without pinned memory": float(found.num_pageable)}


def _rows(what: str, found: Findings, is_goal: bool = True) -> Iterator[Row]:
    if found.idle_share is None:
        yield Row(what, {"on the device": "no event"})
        return
    goals = (at_most("idle", found.idle_share, _IDLE_BOUND),) if is_goal else ()
    shares: dict[str, Value] = {name: round(share, 4) for name, share in found.shares.items()}
    yield Row(
        what,
        {"idle": found.idle_share, "copies to the host": float(found.num_to_host), **_pageable(found), **shares},
        goals,
    )
    yield Row(f"{what}, longest", {name[:60]: share for name, share in found.longest})
