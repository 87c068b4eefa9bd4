"""Reads the files of a run folder into frozen records, from which the report's tables and plots are made.

Invariant: a run still under way reads as well as a finished one. A missing file is an empty record, and a line that is
just being written is left out. A damaged file among those that are written whole is an error.

A restart goes back to a checkpoint and trains the steps after it again. A stage's `steps` hold each step
once, as the model that exists now was trained:

    lines    attempt 1: 0 1 2 3 4     attempt 2: 3 4 5
    steps    0 1 2 (attempt 1) 3 4 5 (attempt 2)

What is counted, the ledger says, as for `sft verify`: a step that made no update has no line of metrics, nor has an
attempt that had no step left to train.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sft.answer_files import answers_of
from sft.atomic_files import MANIFEST, read_json
from sft.data.planning.mixture import MixtureRow
from sft.data.planning.pack_plan import parts_of, steps_of
from sft.difficulty.summary import Difficulty, read_difficulty
from sft.errors import UserError
from sft.evaluation.answer_scores import Clusters, ModelScores, read_scores
from sft.evaluation.scores import Evaluation, TaskScores, read_evaluation
from sft.json_lines import from_json, whole_lines
from sft.ledger import Ledger, read_ledger
from sft.metrics import StepMetrics, read_metrics_line
from sft.run_folder import RunFolder, StageFolder, check_of
from sft.run_restarts import read_restarts, restart_steps
from sft.stage_end import StageEnd, read_stage_end

_NO_LEDGER = Ledger({}, (), (), (), ())


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The manifest of a stage's pack plan; `fill` is the share of slots that hold a token."""

    mixture: tuple[MixtureRow, ...]
    unit: str
    num_packs: int
    num_steps: int
    num_tokens: int
    num_supervised_tokens: int
    fill: float
    extensions: tuple["Extension", ...] = ()


@dataclass(frozen=True, slots=True)
class Extension:
    """What was added to a stage that had trained: from which step on, and at which learning rate."""

    first_step: int
    num_steps: int
    schedule: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What a stage's folder holds so far; `restarts` are the steps from which a later attempt trained it."""

    index: int
    name: str
    steps: tuple[StepMetrics, ...]
    restarts: tuple[int, ...]
    num_done: int
    """Steps that were fed and not rolled back, with those that made no update."""
    num_rolled_back: int
    num_unreadable_lines: int
    plan: PlanRecord | None
    end: StageEnd | None
    checked: Mapping[str, str]
    """For each exported model that was compared in use, by the name of its folder: what was found, in words."""

    @property
    def is_complete(self) -> bool:
        """Whether the stage has ended."""
        return self.end is not None

    @property
    def num_steps(self) -> int:
        """Steps of the finished stage; the steps done if that is not known yet."""
        if self.end is not None and self.end.is_early:
            return self.end.num_steps
        if self.plan:
            return self.plan.num_steps
        return self.steps[-1].num_steps if self.steps else 0


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """A held-out prompt with the answers of the data, of the first model and of the last."""

    task: str
    prompt: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RunRecords:
    """All records of a run. `evaluations`: of the base and of the stages, in order; `mid_stage`: within stages."""

    name: str
    config_text: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    stages: tuple[StageRecord, ...]
    evaluations: tuple[Evaluation, ...]
    mid_stage: tuple[Evaluation, ...]
    sample_answers: tuple[SampleAnswer, ...]
    scores: tuple[ModelScores, ...]
    """Of the answers of the evaluated models, if they were asked."""
    mid_stage_scores: tuple[ModelScores, ...]
    clusters: Clusters
    num_restarts: int
    difficulty: Difficulty | None = None
    """Of the examples that the stages are made of, if `sft score` measured it."""

    @property
    def steps(self) -> list[StepMetrics]:
        """The steps of all stages, in the order of training."""
        return [step for stage in self.stages for step in stage.steps]


def read_run(run: RunFolder) -> RunRecords:
    """Everything that the run folder holds now.

    Raises:
        UserError: there is no such folder, or a published file in it is damaged.
    """
    if not run.path.is_dir():
        raise UserError(f"{run.path}: there is no such run folder; give the one named by the config's run.dir")
    config_text = run.config.read_text(encoding="utf-8") if run.config.is_file() else ""
    config = _mapping(yaml.safe_load(config_text)) if config_text else {}
    files = run.all_evaluations()
    evaluations = [
        read_evaluation(_read_published(path), stage.index if stage else None, num_steps)
        for path, stage, num_steps in files
    ]
    answers = (answers_of(file.path) for file in files)
    scores = [found for found in map(read_scores, evaluations, answers) if found is not None]
    # A stage that was added later may train on a task that was unseen before. Means are over the same tasks.
    trained = {name for e in evaluations for name, task in e.tasks.items() if not task.unseen}
    evaluations = [replace(e, tasks=_of_kinds(e.tasks, trained)) for e in evaluations]
    scores = [one.with_trained(trained) for one in scores]
    return RunRecords(
        name=str(_mapping(config.get("run")).get("name") or run.path.resolve().name),
        config_text=config_text,
        config=config,
        manifest=_mapping(_read_published(run.manifest)),
        stages=tuple(_read_stages(run)),
        evaluations=tuple(e for e in evaluations if e.step is None),
        mid_stage=tuple(e for e in evaluations if e.step is not None),
        sample_answers=tuple(from_json(SampleAnswer, a) for a in _read_published(run.sample_answers) or ()),
        scores=tuple(one for one in scores if one.step is None),
        mid_stage_scores=tuple(one for one in scores if one.step is not None),
        clusters=_clusters(config),
        num_restarts=len(read_restarts(run)),
        difficulty=_read_difficulty(run),
    )


def _read_difficulty(run: RunFolder) -> Difficulty | None:
    plans = (_mapping(_read_published(folder.packs / MANIFEST)) for folder in run.stage_folders())
    stores = [str(store) for plan in plans if (store := _mapping(plan.get("inputs")).get("store"))]
    return read_difficulty(run.losses(stores[-1])) if stores else None


def _of_kinds(tasks: Mapping[str, TaskScores], trained: Collection[str]) -> dict[str, TaskScores]:
    return {name: replace(task, unseen=name not in trained) for name, task in tasks.items()}


def _read_stages(run: RunFolder) -> list[StageRecord]:
    folders = run.stage_folders()
    ledgers = [read_ledger(folder.ledger) if folder.ledger.is_file() else _NO_LEDGER for folder in folders]
    restarts = restart_steps(ledger.resumes for ledger in ledgers)
    return [_read_stage(*found) for found in zip(folders, ledgers, restarts, strict=True)]


def _read_stage(folder: StageFolder, ledger: Ledger, restarts: tuple[int, ...]) -> StageRecord:
    steps: dict[int, StepMetrics] = {}
    attempt = num_unreadable_lines = 0
    for line in whole_lines(folder.metrics) if folder.metrics.is_file() else ():
        record = read_metrics_line(line)
        if record is None:
            num_unreadable_lines += 1
            continue
        if record.attempt > attempt:
            attempt = record.attempt
            # Steps after the checkpoint are rolled back, and not all of them may be repeated yet.
            steps = {step: known for step, known in steps.items() if step < record.step}
        steps[record.step] = record
    return StageRecord(
        index=folder.index,
        name=folder.name,
        steps=tuple(steps[step] for step in sorted(steps)),
        restarts=restarts,
        num_done=len(ledger.effective),
        num_rolled_back=len(ledger.rolled_back),
        num_unreadable_lines=num_unreadable_lines,
        plan=_read_plan(folder.packs / MANIFEST),
        end=read_stage_end(folder),
        checked={path.name: text for path in (folder.model, folder.best_model) if (text := _verdict(check_of(path)))},
    )


def _verdict(check: Path) -> str:
    try:
        return str(_mapping(read_json(check)).get("in_words", ""))
    except (FileNotFoundError, UserError):
        return ""


def _read_plan(path: Path) -> PlanRecord | None:
    content = _mapping(_read_published(path))
    if "mixture" not in content:
        return None
    mixture = tuple(from_json(MixtureRow, row) for row in content["mixture"])
    return from_json(PlanRecord, {**content, "mixture": mixture, "extensions": tuple(_extensions(content))})


def _extensions(manifest: Mapping[str, Any]) -> Iterator[Extension]:
    if parts := parts_of(manifest):
        num_steps = steps_of(manifest).part_steps
        for i in range(1, len(parts)):
            yield Extension(sum(num_steps[:i]), num_steps[i], parts[i].schedule)


def _read_published(path: Path) -> Any:
    """The content of a file that is written whole; None if there is none."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None


def _clusters(config: Mapping[str, Any]) -> Clusters:
    """The clusters of tasks in a run's config."""
    clusters = _mapping(_mapping(config.get("data")).get("clusters"))
    return {name: tuple(tasks) for name, tasks in clusters.items()}


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, dict) else {}
