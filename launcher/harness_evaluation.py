"""The part of the verb `evaluate` in which models are asked tasks of lm-evaluation-harness.

One model after the other, in a process of its own on this machine. A task that is done is kept, and not asked again.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from launcher.console import styled
from launcher.exit_codes import DONE, FAILED
from sft.atomic_files import fingerprint
from sft.data.rendering.chat_template import load_tokenizer
from sft.errors import TrainingError
from sft.harness.comparison import harness_rows, harness_table
from sft.harness.process import HarnessProcess
from sft.harness.results import HarnessScore, log_path, read_scores, samples_path
from sft.harness.tasks import HarnessTasks, identity_of
from sft.hub_answers import why_no_answer
from sft.job_config import JobConfig
from sft.run_claim import measuring_in
from sft.run_folder import RunFolder
from sft.training.whole_evaluation import WholeModelPath, models_of

_OFFLINE = "HF_HUB_OFFLINE"
_MOST_NAME_CHARS = 60


def evaluate_with_harness(job: JobConfig, wanted: Sequence[str], tasks: HarnessTasks, console: Console) -> int:
    """Ask the models the tasks, and show how well they do; returns the exit code.

    Args:
        job: the run, with the settings of `evaluate`.
        wanted: see `models_of`.
        tasks: what they are asked.
        console: where the table goes.

    Raises:
        UserError: models, tasks or settings cannot be used.
    """
    models = models_of(job.sft, wanted)
    template = load_tokenizer(job.sft.model).chat_template
    asked = _Asked(RunFolder(job.sft.run.dir).harness, tasks, identity_of(tasks, job.sft, str(template)))
    problems = [problem for model in models for problem in _ask(job, asked, model, console)]
    found = {model: scores for model in models if (scores := asked.scores(model))}
    if found:
        console.print(harness_table([*map(_title, found)], harness_rows([*found.values()])))
    for problem in problems:
        console.print(styled("[red]{}[/]", problem), highlight=False, soft_wrap=True)
    console.print(f"results and answers  {asked.folder}", highlight=False, soft_wrap=True)
    return FAILED if problems else DONE


class _Asked(NamedTuple):
    """What is asked, and where results are."""

    folder: Path
    tasks: HarnessTasks
    identity: dict[str, Any]

    def of(self, model: WholeModelPath) -> Path:
        return self.folder / model.file_name

    def result(self, model: WholeModelPath, term: str) -> Path:
        name = re.sub(r"[^\w.-]+", "_", term)[-_MOST_NAME_CHARS:].lstrip("._")
        return self.of(model) / f"{name}-{fingerprint([term, self.identity])[:12]}.json"

    def missing(self, model: WholeModelPath) -> list[str]:
        return [term for term in self.tasks.terms if not self.result(model, term).is_file()]

    def scores(self, model: WholeModelPath) -> list[HarnessScore]:
        paths = [self.result(model, term) for term in self.tasks.terms]
        return [score for path in paths if path.is_file() for score in read_scores(path)]


def _ask(job: JobConfig, asked: _Asked, model: WholeModelPath, console: Console) -> list[str]:
    """Ask the model what it was not asked yet; returns what went wrong, a sentence for each task."""
    folder, problems = asked.of(model), list[str]()
    with measuring_in(folder):
        missing = asked.missing(model)
        if not missing:
            return []
        why = _why_no_hub()
        environment = {_OFFLINE: "1"} if why else {}
        environment |= {"HF_ALLOW_CODE_EVAL": "1"} if job.sft.evaluate.allow_code else {}
        try:
            with _shown(f"{model.name}: looking at the tasks", console):
                process = HarnessProcess(_about(job, asked, model), log_path(folder), environment)
            with process:
                for number, term in enumerate(missing, start=1):
                    with _shown(f"{model.name}: {term} ({number} of {len(missing)})", console):
                        path = asked.result(model, term)
                        error = process.ask(term, path, samples_path(path))
                    if error:
                        problems.append(f"{model.name}: {term}: {_in_words(error, why)}")
        except TrainingError as error:
            problems.append(f"{model.name}: {error}. The same command goes on with the tasks that are done.")
    return problems


def _about(job: JobConfig, asked: _Asked, model: WholeModelPath) -> dict[str, Any]:
    """What the process needs to know."""
    config = job.sft
    return {
        "path": model.path,
        "model": config.model.model_dump(mode="json", by_alias=True),
        "dtype": config.model.dtype,
        "device": "cuda:0" if job.cluster.gpus_per_worker else "cpu",
        "terms": asked.tasks.terms,
        "include": asked.tasks.include,
        "limit": asked.tasks.limit,
        "shots": asked.tasks.shots,
        "shots_as": config.evaluate.shots_as,
        "allow_code": config.evaluate.allow_code,
        "identity": asked.identity,
    }


@cache
def _why_no_hub() -> str | None:
    """Why the Hub cannot be asked, in words, found out once; None where it can, or must not."""
    return None if os.environ.get(_OFFLINE) else why_no_answer()


def _title(model: WholeModelPath) -> str:
    return model.name if model.stage_index is None else f"after {model.name}"


def _in_words(error: str, why: str | None) -> str:
    """What to do about an error that has a usual cause."""
    if re.search(r"[Oo]ffline|Couldn't reach|LocalEntryNotFound", error):
        reason = f"does not answer ({why})" if why else f"is not asked ({_OFFLINE})"
        return (
            f"its data is not on this machine, and the Hub {reason}. Run the same command where the Hub answers, and "
            f"bring its cache (HF_HOME) here; or give a task whose data is in files, with --harness-include. ({error})"
        )
    if "unsafe" in error:
        return (
            "it runs code that the model writes, and the harness does so without a sandbox. If you accept that, in a "
            "container of its own: evaluate.allow_code=true"
        )
    if "Dataset scripts are no longer supported" in error:
        return f"its data set comes as a program, which is not run: give a task whose data is in files. ({error})"
    return error


@contextmanager
def _shown(what: str, console: Console) -> Iterator[None]:
    """While open, shows that something is done."""
    if not console.is_terminal:
        console.print(what, highlight=False, markup=False)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bars.add_task(what, total=None)
        yield
