"""Turns the files of a run folder into points, each once, however often the reader is restarted.

Metrics have the field's usual names: `train/loss`, `throughput/mfu`, `eval/TASK/loss`, `eval/TASK/score_3_shot`. The
step counts through all stages: the first of the second stage follows the last of the first.
"""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from operator import attrgetter
from typing import Any

from sft.atomic_files import MANIFEST, read_json
from sft.evaluation.scores import SCORE, Evaluation, main_metrics, read_evaluation
from sft.json_lines import LineTail
from sft.metrics import StepMetrics, read_metrics_line
from sft.run_folder import RunFolder
from sft.sinks.sink import Point
from sft.stage_end import read_stage_end

_MOST_CURVES = 1000
"""Of single tasks."""
_READ_BYTES = 32_768
"""How much of a stage's metrics is read at a time: enough for one request, some sixty steps."""


def step_values(metrics: StepMetrics, stage_index: int) -> dict[str, float]:
    """The named values of a step."""
    values = {
        "train/loss": metrics.loss,
        "train/grad_norm": metrics.grad_norm,
        "train/lr": metrics.lr,
        "train/stage": stage_index,
        "train/attempt": metrics.attempt,
        "throughput/tokens_per_second": metrics.tokens_per_second,
        "throughput/supervised_tokens_per_second": metrics.supervised_tokens_per_second,
        "throughput/step_seconds": metrics.seconds,
        "throughput/checkpoint_stall_seconds": metrics.checkpoint_stall_seconds,
        "throughput/input_wait_seconds": metrics.input_wait_seconds,
        "throughput/slowest_rank_slowdown": metrics.slowdown,
        "throughput/mfu": metrics.mfu,
        "memory/peak_gib": metrics.peak_memory_gib,
        "memory/peak_resident_gib": metrics.peak_resident_gib,
        "memory/peak_reserved_gib": metrics.peak_reserved_gib,
    }
    return _known(values)


def evaluation_values(evaluation: Evaluation) -> dict[str, float]:
    """The named values of an evaluation: each metric over all tasks, and the main ones of each task.

    What else is known of the answers to a task is in the run folder. So are the values of single tasks where they would
    be more curves than anybody looks at: then only their scores are sent, or else none.
    """
    main = [*main_metrics([evaluation])]
    scores = [name for name in main if name.partition("@")[0] == SCORE]
    sent = next((names for names in (main, scores) if len(names) * len(evaluation.tasks) <= _MOST_CURVES), [])
    values = {**evaluation.totals}
    for unseen, kind in ((True, "unseen_tasks"), (False, "trained_tasks")):
        values |= {f"{kind}/{name}": evaluation.mean_of_tasks(name, unseen) for name in scores}
    values |= {f"{task}/{name}": evaluation.value(name, task) for task in evaluation.tasks for name in sent}
    return _known({f"eval/{_sent_name(name)}": value for name, value in values.items()})


def _sent_name(name: str) -> str:
    """`score@3` with letters that every sink takes: `score_3_shot`."""
    metric, at, shots = name.rpartition("@")
    return f"{metric}_{shots}_shot" if at and shots.isdecimal() else name


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


class RunReader:
    """Reads what is new. `state` says how far it has read, as plain values; a reader made with it goes on there."""

    def __init__(self, run: RunFolder, stages: Sequence[str], replaces: bool, state: Mapping[str, Any]) -> None:
        """`stages`: the names of the run's stages. `replaces`: see `Sink`. `state`: empty at first."""
        self._run = run
        self._folders = [run.stage(index, name) for index, name in enumerate(stages)]
        self._replaces = replaces
        self.state: dict[str, Any] = {"stages": {}, "evaluations": {}, **state}
        self._looked_at: dict[str, int] = {}

    def read(self) -> list[Point]:
        """Some of the new points, in the order of time; empty if there are none.

        Raises:
            OSError: the run folder cannot be read; the next call reads the same.
        """
        before = deepcopy(self.state)
        try:
            # Steps keep their order even if the nodes' clocks differ.
            return list(heapq.merge(self._read_steps(), self._read_evaluations(), key=attrgetter("time")))
        except OSError:
            self.state = before
            self._looked_at.clear()
            raise

    def _read_steps(self) -> Iterator[Point]:
        for index, folder in enumerate(self._folders):
            come = self.state["stages"].setdefault(folder.name, {"offset": 0, "step": -1})
            tail = LineTail(folder.metrics, come["offset"])
            read = [read_metrics_line(line) for line in tail.read_new(_READ_BYTES)]
            come["offset"] = tail.offset
            first_step = self._first_step(index) if read else 0
            for metrics in filter(None, read):
                is_again = metrics.step <= come["step"]
                if not is_again or self._replaces:
                    come["step"] = metrics.step
                    step = first_step + metrics.step + 1
                    yield Point(folder.name, step, metrics.time, step_values(metrics, index), is_again)

    def _read_evaluations(self) -> Iterator[Point]:
        seen = self.state["evaluations"]
        for path, stage, num_steps in self._run.all_evaluations():
            changed = path.stat().st_mtime_ns
            if self._looked_at.get(path.name) == changed or (stage is not None and stage not in self._folders):
                continue
            self._looked_at[path.name] = changed
            index = self._folders.index(stage) if stage else 0
            step, content = self._first_step(index), read_json(path)
            if stage is not None:
                # At the end of a stage that ended before its budget, the file says after which step.
                step += content.get("num_steps", self._num_steps(index)) if num_steps is None else num_steps
            # Keyed by the step, because a stage's last file is renamed when the stage is extended.
            key = f"{stage.path.name if stage else 'base'} {step}"
            if seen.get(key) != changed and (key not in seen or self._replaces):
                seen[key] = changed
                values = evaluation_values(read_evaluation(content, index, num_steps))
                yield Point(self._folders[index].name, step, changed / 1e9, values)

    def _first_step(self, index: int) -> int:
        return sum(self._num_steps(earlier) for earlier in range(index))

    def _num_steps(self, index: int) -> int:
        end = read_stage_end(self._folders[index])
        if end is not None and end.is_early:
            return end.num_steps
        return int(read_json(self._folders[index].packs / MANIFEST)["num_steps"])
