"""Where everything in a run folder is. The only place that knows paths inside it.

RUN_DIR/config.yaml · manifest.json · layout.json · overlap.json · report.html · answers.html · sample_answers.json
    tensorboard/ · sinks/ · driver.lock · ray.log
RUN_DIR/evaluations/ packs/ · base.json · 0-broad.json
RUN_DIR/exports/0-broad-step-00000200/
RUN_DIR/slurm/ what was submitted, and logs
RUN_DIR/attempts/0001/ began.json · rank-00000.{json,log,events.jsonl,hung.json} · ended.json
    {controller,nodes,driver}.events.jsonl
RUN_DIR/stages/0-broad/ packs/, packs-2/ · balance.{json,png} · checkpoints/step-00000200/ · metrics.jsonl
    ledger.jsonl · model/ · model-best/
RUN_DIR/stages/0-broad/stage.json (last)
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sft.json_lines import whole_lines

_STAGE = re.compile(r"\d+-.+")
_ATTEMPT = re.compile(r"\d{4,}")
"""Does not match a copy that a user made, such as `0001.bak`."""
_AFTER_STEPS = re.compile(r"(.+)-step-(\d{8})")
_BASE = "base"
ANSWERS_PAGE = "answers.html"
"""Lies beside a report, or beside the answers that `sft evaluate` got."""


@dataclass(frozen=True, slots=True)
class StageFolder:
    """The folder of one stage."""

    path: Path

    @property
    def index(self) -> int:
        """The stage's place in the curriculum."""
        return int(self.path.name.partition("-")[0])

    @property
    def name(self) -> str:
        """The stage's name in the config."""
        return self.path.name.partition("-")[2]

    @property
    def packs(self) -> Path:
        """The newest published pack plan, or the place of the first one."""
        return self.plans()[-1]

    def plans(self) -> list[Path]:
        """The pack plans, each of which begins like the one before: `packs`, and for each extension `packs-2`, …"""
        plans = [self.path / "packs"]
        while (extended := self.path / f"packs-{len(plans) + 1}").is_dir():
            plans.append(extended)
        return plans

    @property
    def next_plan(self) -> Path:
        """The place for the plan of an extension."""
        return self.path / f"packs-{len(self.plans()) + 1}"

    @property
    def balance(self) -> Path:
        """The share of the stage that each task should get, and the share that it got."""
        return self.path / "balance.json"

    @property
    def balance_plot(self) -> Path:
        """The same as a picture."""
        return self.path / "balance.png"

    @property
    def checkpoints(self) -> Path:
        """One published folder for each kept checkpoint."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON line for each step; a step that was trained again after a restart has two."""
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """What the ranks really fed, one JSON line for each step."""
        return self.path / "ledger.jsonl"

    @property
    def model(self) -> Path:
        """The published Hugging Face model at the end of the stage."""
        return self.path / "model"

    @property
    def best_model(self) -> Path:
        """The published model of the best evaluated step, if that is not the end of the stage (`checkpoint.best`)."""
        return self.path / "model-best"

    def earlier_models(self, of: Path | None = None) -> list[Path]:
        """The models that the stage published at its earlier ends, before it was extended; or those once `of`."""
        paths = self.path.glob(f"{(of or self.model).name}-step-*")
        return sorted(path for path in paths if re.fullmatch(r"\d{8,}", path.name.rpartition("-")[2]))

    @property
    def complete(self) -> Path:
        """Exists when the stage is finished, and will not run again unless it is extended."""
        return self.path / "stage.json"

    def has_trained(self) -> bool:
        """Whether any step was fed; before that, everything may be planned anew."""
        # A step that made no update has no metrics, and an attempt that began none has a ledger.
        if self.metrics.is_file():
            return True
        return self.ledger.is_file() and any(b'"packs"' in line for line in whole_lines(self.ledger))

    def ended_after(self, num_steps: int, path: Path) -> Path:
        """The place where `path`, which was published at the stage's end, is kept when the stage is extended."""
        return path.with_name(f"{path.stem}-step-{num_steps:08d}{path.suffix}")


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    """The folder of one start of the job. `sft.attempt_record` and `sft.run_events` read and write its files."""

    path: Path

    @property
    def number(self) -> int:
        """The attempt's number, from 1."""
        return int(self.path.name)

    @property
    def began(self) -> Path:
        """When it began, and with how many ranks."""
        return self.path / "began.json"

    @property
    def ended(self) -> Path:
        """Why it ended; missing after a crash."""
        return self.path / "ended.json"

    def rank(self, rank: int) -> Path:
        """Which process on which node a rank is."""
        return self.path / f"rank-{rank:05d}.json"

    def ranks(self) -> dict[int, Path]:
        """The `rank` files of all ranks that have begun."""
        return {int(path.name[5:10]): path for path in self.path.glob("rank-?????.json")}

    def hang_report(self, rank: int) -> Path:
        """Where a rank is that sees no progress."""
        return self.path / f"rank-{rank:05d}.hung.json"

    def hang_reports(self) -> dict[int, Path]:
        """The hang reports of all ranks that wrote one."""
        return {int(path.name[5:10]): path for path in self.path.glob("rank-?????.hung.json")}

    def collectives(self, rank: int) -> Path:
        """The last collectives of a rank that hung, as torch recorded them."""
        return self.path / f"rank-{rank:05d}.collectives.json"

    def log(self, rank: int) -> Path:
        """What a rank printed."""
        return self.path / f"rank-{rank:05d}.log"

    def events(self, writer: int | str) -> Path:
        """The events of a rank, or of another writer by its name."""
        return self.path / f"{f'rank-{writer:05d}' if isinstance(writer, int) else writer}.events.jsonl"

    def all_events(self) -> list[Path]:
        """The files of all writers."""
        return sorted(self.path.glob("*.events.jsonl"))

    def staging_report(self, stage: StageFolder, rank: int) -> Path:
        """What this rank's node copied to its disk; the first rank of the node writes it."""
        return self.path / f"staging-{stage.path.name}-rank-{rank:05d}.json"


class EvaluationFile(NamedTuple):
    """The model that it measured: after `num_steps` of a stage, at the stage's end (None), or the first (no stage)."""

    path: Path
    stage: StageFolder | None
    num_steps: int | None


def check_of(model: Path) -> Path:
    """What the check of an exported model found, beside its folder."""
    return model.with_name(f"{model.name}.check.json")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def overlap(self) -> Path:
        """What training and held-out examples have in common."""
        return self.path / "overlap.json"

    @property
    def manifest(self) -> Path:
        """The versions of the packages that compute."""
        return self.path / "manifest.json"

    @property
    def layout(self) -> Path:
        """How examples are laid out for the model, and why."""
        return self.path / "layout.json"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.path / "report.html"

    @property
    def answers_page(self) -> Path:
        """Another page beside it: all prompts with the models' answers."""
        return self.path / ANSWERS_PAGE

    @property
    def evaluations(self) -> Path:
        """What was measured on held-out examples: `base.json`, then one file for each stage."""
        return self.path / "evaluations"

    @property
    def heldout_packs(self) -> Path:
        """The plan of the held-out examples that are measured."""
        return self.evaluations / "packs"

    @property
    def questions(self) -> Path:
        """The held-out prompts that the models of the run answer."""
        return self.evaluations / "questions"

    @property
    def sample_answers(self) -> Path:
        """Held-out prompts answered by the first and the last model."""
        return self.path / "sample_answers.json"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def sinks(self) -> Path:
        """What the sinks of metrics keep: how much each has sent, its log, and its own files."""
        return self.path / "sinks"

    def sink_state(self, name: str) -> Path:
        """How much a sink has sent."""
        return self.sinks / f"{name}.json"

    def sink_log(self, name: str) -> Path:
        """What a sink's process printed."""
        return self.sinks / f"{name}.log"

    @property
    def attempts(self) -> Path:
        """One folder of logs for each start of the job."""
        return self.path / "attempts"

    @property
    def ray_log(self) -> Path:
        """What Ray, and the process that speaks to it, printed."""
        return self.path / "ray.log"

    @property
    def slurm(self) -> Path:
        """The batch script of the job, and its output as Slurm keeps it."""
        return self.path / "slurm"

    @property
    def lock(self) -> Path:
        """Held by the job that works in this folder: the driver, or under torchrun the first rank."""
        return self.path / "driver.lock"

    @property
    def planning_lock(self) -> Path:
        """Held by the process that plans."""
        return self.path / ".planning.lock"

    @property
    def ray(self) -> Path:
        """Ray Train's own files."""
        return self.path / "ray"

    @property
    def stages(self) -> Path:
        """One folder for each stage."""
        return self.path / "stages"

    @property
    def exports(self) -> Path:
        """Models of kept checkpoints, which `sft export` wrote: a folder each."""
        return self.path / "exports"

    @property
    def stop_file(self) -> Path:
        """While this file exists, it asks the job to save a checkpoint and stop."""
        return self.path / "STOP"

    def has_trained(self) -> bool:
        """Whether any step of any stage was trained here; before that, everything may be planned anew."""
        return any(folder.has_trained() for folder in self.stage_folders())

    def has_finished(self, names: Iterable[str]) -> bool:
        """Whether each of these stages, the first of the curriculum in their order, is finished."""
        return all(self.stage(i, name).complete.is_file() for i, name in enumerate(names))

    def entries(self) -> list[Path]:
        """Everything that a run may write at the top of its folder."""
        files = [self.config, self.manifest, self.layout, self.overlap, self.report, self.answers_page]
        files += [self.sample_answers, self.ray_log, *self.folders()]
        return [*files, self.lock, self.planning_lock, self.stop_file]

    def folders(self) -> list[Path]:
        """The entries that are folders."""
        used = [self.stages, self.exports, self.evaluations, self.tensorboard, self.sinks, self.attempts, self.slurm]
        return [*used, self.ray]

    def attempt(self, number: int) -> AttemptFolder:
        """The folder of one start of the job: its logs, and why it ended."""
        return AttemptFolder(self.attempts / f"{number:04d}")

    def latest_attempt(self) -> int:
        """The number of the newest attempt, 0 before the first."""
        return max((folder.number for folder in self.all_attempts()), default=0)

    def all_attempts(self) -> list[AttemptFolder]:
        """The folders of all attempts, the oldest first."""
        found = [path for path in self.attempts.glob("[0-9]*") if _ATTEMPT.fullmatch(path.name) and path.is_dir()]
        folders = [AttemptFolder(path) for path in found]
        return sorted(folders, key=lambda folder: folder.number)

    def evaluation(self, stage: StageFolder | None = None, num_steps: int | None = None) -> Path:
        """The evaluation of the first model, of a stage at its end, or of a stage after `num_steps`."""
        path = self.evaluations / f"{stage.path.name if stage else _BASE}.json"
        return stage.ended_after(num_steps, path) if stage and num_steps is not None else path

    def is_measured_apart_alone(self) -> bool:
        """Whether `evaluations` has nothing but what is measured apart from a run, which may be before it begins."""
        apart = {path.name for path in (self.asked(""), self.losses("x").parent, self.harness)}
        return self.evaluations.is_dir() and {path.name for path in self.evaluations.iterdir()} <= apart

    def asked(self, name: str) -> Path:
        """What `sft evaluate` made and measured with certain settings, apart from the run's own evaluations."""
        return self.evaluations / "asked" / name

    def losses(self, store: str) -> Path:
        """The losses of all examples of this token store, a table for each model that was scored (`sft score`)."""
        return self.evaluations / "losses" / store

    @property
    def harness(self) -> Path:
        """What models got in the tasks of lm-evaluation-harness: a folder for each of them."""
        return self.evaluations / "harness"

    def all_evaluations(self) -> list[EvaluationFile]:
        """All evaluations: of the first model, then by stage and step; a stage's end comes after its steps."""
        found = []
        for path in sorted(self.evaluations.glob("*.json")):
            within = _AFTER_STEPS.fullmatch(path.stem)
            name = within[1] if within else path.stem
            if _STAGE.fullmatch(name):
                found.append(EvaluationFile(path, StageFolder(self.stages / name), int(within[2]) if within else None))
        found.sort(key=lambda file: (file.stage.index if file.stage else -1, file.num_steps or math.inf))
        base = self.evaluation()
        return [EvaluationFile(base, None, None), *found] if base.is_file() else found

    def stage(self, index: int, name: str) -> StageFolder:
        """The folder of the stage with this place in the curriculum."""
        return StageFolder(self.stages / f"{index}-{name}")

    def stage_folders(self) -> list[StageFolder]:
        """The folders of all stages that have one, in the order of the curriculum."""
        found = [StageFolder(path) for path in self.stages.glob("*/") if _STAGE.fullmatch(path.name)]
        return sorted(found, key=lambda folder: (folder.index, folder.name))
