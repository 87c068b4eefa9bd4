"""The verb `evaluate`: measures whole models one after the other, and shows them side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from launcher.cluster.model_actors import workers_of
from launcher.console import styled
from launcher.exit_codes import DONE, FAILED
from launcher.layout_check import find_layout
from launcher.preparation import preparation_shown
from sft.atomic_files import read_manifest
from sft.config import SftConfig
from sft.errors import TrainingError
from sft.evaluation.scores import main_metrics
from sft.evaluation.tables import score_table
from sft.job_config import JobConfig
from sft.progress import Tell
from sft.training.whole_evaluation import Measurement, WholeModelPath, measure_whole, models_of, prepare_measurement


def evaluate_models(job: JobConfig, wanted: Sequence[str], console: Console) -> int:
    """Measure the models that are wanted; returns the exit code.

    Raises:
        UserError: data, models or settings cannot be used.
    """
    config = job.sft
    models = models_of(config, wanted)
    with preparation_shown(console) as report:
        measurement = prepare_measurement(config, report)
    _say_what_is_asked(config, measurement, console)
    evaluations = []
    try:
        with workers_of(job, console) as open_model:
            for model in models:
                with _shown(model, console) as tell:
                    evaluations.append(measure_whole(_laid_out(config, model), measurement, model, open_model, tell))
    except TrainingError as error:
        console.print(styled("[red]The measurement cannot go on:[/] {}", str(error)))
        return FAILED
    for metric in main_metrics(evaluations):
        console.print(score_table(evaluations, metric))
    console.print(f"answers and scores   {measurement.folder}", highlight=False, soft_wrap=True)
    return DONE


def _laid_out(config: SftConfig, model: WholeModelPath) -> SftConfig:
    """The config with the layout of the model."""
    own = config.model_copy(update={"model": config.model.model_copy(update={"path": model.path})})
    layout = find_layout(own, is_whole=True)["layout"]
    return own.model_copy(update={"train": own.train.model_copy(update={"packing": layout or "one_example"})})


def _say_what_is_asked(config: SftConfig, measurement: Measurement, console: Console) -> None:
    if measurement.asked is None:
        text = "No prompt is asked, so losses are measured alone: evaluate.answers_per_task says how many are."
        console.print(text, highlight=False)
        return
    manifest = read_manifest(measurement.folder / "questions")
    console.print(f"{manifest['num_questions']:,} prompts are asked", highlight=False)
    if num := manifest["num_with_fewer_shots"]:
        most = config.data.max_len_tokens
        text = (
            f"of them {num:,} with fewer examples than evaluate.shots says: no more fit in data.max_len_tokens={most}"
        )
        console.print(text, highlight=False)
    for reason, num in manifest["left_out"].items():
        console.print(styled("[yellow]{}[/] not asked: {}", f"{num:,}", reason), highlight=False)
    for task, score in measurement.asked.scores.items():
        console.print(f"{task}: {score.name}", highlight=False, markup=False)


@contextmanager
def _shown(model: WholeModelPath, console: Console) -> Iterator[Tell]:
    """While open, shows that something is done."""
    done = TextColumn("{task.completed:,} tokens and batches")
    columns = (TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), done, TimeElapsedColumn())
    if not console.is_terminal:
        console.print(f"measuring {model.name}", highlight=False, markup=False)
        yield lambda: None
        return
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(model.name, total=None)
        yield lambda: bars.advance(task)
