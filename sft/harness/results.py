"""What lm-evaluation-harness measured: from its results to files, and from files to scores.

simple_evaluate's dictionary ─scores_in─▶ JSON ─read_scores─▶ HarnessScore, one for each metric of a task or group
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from sft.atomic_files import read_json
from sft.json_lines import from_json, json_line

_STDERR = "_stderr"


def log_path(folder: Path) -> Path:
    """What the harness printed while it asked the model whose results are in the folder."""
    return folder / "harness.log"


def samples_path(result: Path) -> Path:
    """The examples that a result comes from, beside it."""
    return result.with_name(f"{result.stem}.samples.jsonl")


@dataclass(frozen=True, slots=True)
class HarnessScore:
    """A metric of a task, or of a group of tasks."""

    task: str
    metric: str
    filter: str
    """Which part of an answer counts, such as `strict-match`; `none` for all of it."""
    value: float
    stderr: float
    """Its standard error; NaN where the harness knows none."""
    is_higher_better: bool
    num_examples: int
    shots: int
    is_group: bool
    examples: Mapping[str, float]
    """The metric of each example, where it is a number for each."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The same for all models."""
        return self.task, self.metric, self.filter, self.shots

    @property
    def name(self) -> str:
        """The metric as it is shown."""
        return self.metric if self.filter == "none" else f"{self.metric} {self.filter}"


def scores_in(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores in what `lm_eval.simple_evaluate` returns, as JSON: those of groups first."""
    groups = results.get("groups") or {}
    found = []
    for task, numbers in {**groups, **results["results"]}.items():
        for key, value in numbers.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith(_STDERR):
                continue
            better = results.get("higher_is_better", {}).get(task, {}).get(metric)
            found.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": kind,
                    "value": _number(value),
                    "stderr": _number(numbers.get(f"{metric}{_STDERR},{kind}")),
                    "is_higher_better": better is not False,
                    "num_examples": _num_examples(results, task),
                    "shots": _shots(results, task),
                    "is_group": task in groups,
                    "examples": _examples(results, task, metric, kind),
                }
            )
    return found


def samples_of(results: Mapping[str, Any]) -> Iterator[str]:
    """Each example with the model's answer and its verdicts, a line each."""
    for task, samples in (results.get("samples") or {}).items():
        for sample in samples:
            yield json_line(json.loads(json.dumps({"task": task, **sample}, default=str)))


def read_scores(path: Path) -> list[HarnessScore]:
    """The scores in a file."""
    return [from_json(HarnessScore, score) for score in read_json(path)["scores"]]


def _num_examples(results: Mapping[str, Any], task: str) -> int:
    """Of a group, those of its tasks together."""
    counts = results.get("n-samples", {})
    if task in counts:
        return int(counts[task]["effective"])
    return sum(_num_examples(results, own) for own in _inside(results, task))


def _shots(results: Mapping[str, Any], task: str) -> int:
    """Of a group, those of the first of its tasks."""
    number = _number(results.get("n-shot", {}).get(task))
    if number is None:
        return next((_shots(results, own) for own in _inside(results, task)), 0)
    return int(number)


def _inside(results: Mapping[str, Any], task: str) -> list[str]:
    """The tasks and groups in a group."""
    return [own for own in results.get("group_subtasks", {}).get(task) or () if own != task]


def _examples(results: Mapping[str, Any], task: str, metric: str, kind: str) -> dict[str, float]:
    found = {}
    for sample in (results.get("samples") or {}).get(task, ()):
        value = sample.get(metric)
        if sample.get("filter", "none") == kind and (number := _number(value)) is not None:
            found[str(sample["doc_id"])] = number
    return found


def _number(value: Any) -> float | None:
    """As JSON: null for what is no number, such as `N/A`."""
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None
