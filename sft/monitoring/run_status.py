"""The state of a run in one record, for people and programs."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sft.atomic_files import MANIFEST, is_published, now_on_file_system, read_json
from sft.attempt_record import read_end, read_num_ranks, read_rank
from sft.checkpoint.open_storage import stage_storage
from sft.config import CheckpointConfig
from sft.config_file import read_yaml
from sft.errors import UserError
from sft.monitoring.metrics_tail import MetricsTail
from sft.run_events import Event, EventTail
from sft.run_folder import RunFolder
from sft.run_lock import read_holder
from sft.run_restarts import Restart, find_restarts
from sft.stage_end import read_stage_end

State = Literal["not started", "running", "finished", "stopped", "failed", "dead"]
"""`stopped`: on request, with a checkpoint. `dead`: the driver is gone and recorded no end. The same command resumes
both."""


@dataclass(frozen=True, slots=True)
class StageStatus:
    """How far a stage is. Measured values are means over the last steps, and None before the first."""

    name: str
    num_done: int
    num_steps: int | None
    is_complete: bool
    loss: float | None = None
    step_seconds: float | None = None
    tokens_per_second: float | None = None
    supervised_tokens_per_second: float | None = None
    mfu: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class CheckpointStatus:
    """The newest checkpoint; its age is known if it is in a folder."""

    stage: str
    step: int
    where: str
    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class Straggler:
    """The rank that computes slowest, and by how much slower than the median rank."""

    rank: int
    node: str
    slowdown: float


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Everything that `sft status` shows; `seconds_left` is the time to the end of the last stage."""

    name: str
    state: State
    detail: str
    attempt: int
    num_ranks: int | None
    stages: tuple[StageStatus, ...]
    seconds_left: float | None
    last_step_age_seconds: float | None
    checkpoint: CheckpointStatus | None
    straggler: Straggler | None
    restarts: tuple[Restart, ...]
    num_events: dict[str, int]
    """By kind."""


class RunWatcher:
    """Reads the state of a run repeatedly; of its long files, it reads only what is new."""

    def __init__(self, run: RunFolder) -> None:
        """Open the folder of a run, which other machines may write to.

        Raises:
            UserError: it is not the folder of a run.
        """
        if not run.config.is_file():
            raise UserError(f"{run.path} is not the folder of a run: there is no {run.config.name} in it")
        self._run = run
        config: Any = read_yaml(run.config).content
        try:
            self._name = str(config["run"]["name"])
            # Another version may have written it, with other fields.
            self._checkpoint = CheckpointConfig(dir=config["checkpoint"].get("dir"))
            names = [str(stage["name"]) for stage in config["stages"]]
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise UserError(f"{run.config} is not the config of a run, or damaged ({type(error).__name__})") from error
        self._folders = {name: run.stage(index, name) for index, name in enumerate(names)}
        self._tails = {name: MetricsTail(folder.metrics) for name, folder in self._folders.items()}
        self._events: dict[int, list[Event]] = defaultdict(list)
        self._event_tail = EventTail(run)

    def read(self) -> RunStatus:
        """The state now."""
        run, attempt = self._run, self._run.latest_attempt()
        for tail in self._tails.values():
            tail.read_new()
        for number, event in self._event_tail.read_new():
            self._events[number].append(event)
        # The newest plan of each stage that has one.
        plans = [read_json(f.packs / MANIFEST) if is_published(f.packs) else None for f in self._folders.values()]
        stages, now = self._read_stages(plans), self._now()
        state, detail = self._read_state(attempt, stages, now)
        trained = [(name, tail) for name, tail in self._tails.items() if tail.last is not None]
        current = trained[-1] if trained else None
        last = current[1].last if current else None
        kinds = Counter[str](event.kind for events in self._events.values() for event in events)
        return RunStatus(
            name=self._name,
            state=state,
            detail=detail,
            attempt=attempt,
            num_ranks=read_num_ranks(run.attempt(attempt)),
            stages=stages,
            seconds_left=_whole_time_left(stages, [plan and int(plan["num_tokens"]) for plan in plans]),
            last_step_age_seconds=time.time() - last.time if last else None,
            checkpoint=self._read_checkpoint(now),
            straggler=self._read_straggler(current[1]) if current and state == "running" else None,
            restarts=find_restarts(run, self._events),
            num_events=dict(kinds),
        )

    def _read_stages(self, plans: Sequence[Any]) -> tuple[StageStatus, ...]:
        stages = []
        for (name, folder), plan in zip(self._folders.items(), plans, strict=True):
            tail, end = self._tails[name], read_stage_end(folder)
            is_complete = end is not None
            num_steps = end.num_steps if end is not None and end.is_early else plan and int(plan["num_steps"])
            # The last steps may have made no update, and have no metrics.
            num_done = tail.num_done if end is None else end.num_steps
            if (last := tail.last) is None:
                stages.append(StageStatus(name, num_done, num_steps, is_complete))
                continue
            stages.append(
                StageStatus(
                    name,
                    num_done,
                    num_steps or last.num_steps,
                    is_complete,
                    last.loss,
                    tail.step_seconds,
                    tail.tokens_per_second,
                    tail.supervised_tokens_per_second,
                    tail.mfu,
                    0.0 if is_complete else tail.seconds_left,
                )
            )
        return tuple(stages)

    def _read_state(self, attempt: int, stages: Sequence[StageStatus], now: float) -> tuple[State, str]:
        held = read_holder(self._run.lock)
        if held is not None and held.is_alive(now):
            return "running", held.who
        if all(stage.is_complete for stage in stages):
            return "finished", ""
        if attempt == 0:
            return "not started", "`sft train` starts it"
        ended = read_end(self._run.attempt(attempt))
        if ended is not None and ended.why == "stopped":
            return "stopped", "on request, with a checkpoint; the same command goes on"
        if ended is not None and ended.why in ("failed", "wrong input"):
            return "failed", ended.message
        return "dead", "its driver ended without saying why; the same command goes on"

    def _now(self) -> float:
        """The time by the clock that dates the files there; by our own clock if nothing can be written."""
        try:
            return now_on_file_system(self._run.path)
        except OSError:
            return time.time()

    def _read_checkpoint(self, now: float) -> CheckpointStatus | None:
        for name, folder in reversed(self._folders.items()):
            storage = stage_storage(self._checkpoint, folder)
            steps = [step for step in storage.steps() if storage.is_published(step)]
            if steps:
                manifest = Path(storage.where(steps[-1])) / MANIFEST
                age = now - manifest.stat().st_mtime if manifest.is_file() else None
                return CheckpointStatus(name, steps[-1], storage.where(steps[-1]), age)
        return None

    def _read_straggler(self, tail: MetricsTail) -> Straggler | None:
        found = tail.straggler
        if found is None or tail.last is None:
            return None
        rank, slowdown = found
        process = read_rank(self._run.attempt(tail.last.attempt), rank)
        return Straggler(rank, process.node, slowdown) if process is not None else None


def _whole_time_left(stages: Sequence[StageStatus], num_tokens: Sequence[int | None]) -> float | None:
    """Assumes that later stages train as many tokens a second as the current one."""
    rates = [stage.tokens_per_second for stage in stages if stage.tokens_per_second]
    if not rates:
        return None
    left = 0.0
    for stage, tokens in zip(stages, num_tokens, strict=True):
        if stage.seconds_left is not None:
            left += stage.seconds_left
        elif tokens is None:
            return None
        else:
            left += tokens / rates[-1]
    return left
