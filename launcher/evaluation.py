"""The verb `evaluate`: measures whole models one after the other, and shows them side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from launcher.byproducts import byproduct
from launcher.cluster.model_actors import workers_of
from launcher.console import styled
from launcher.exit_codes import DONE, FAILED
from launcher.layout_check import laid_out
from launcher.pair_tables import PairJudge, check_against, compare_models
from launcher.preparation import preparation_shown, show_made_data, show_questions
from launcher.results import show_results
from launcher.vllm_options import VllmWish
from sft.answer_files import answers_of, marks_of
from sft.config import SftConfig
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint
from sft.errors import TrainingError
from sft.evaluation.agreement_table import agreement_table
from sft.evaluation.answer_scores import read_scores
from sft.evaluation.answers_page import AskedModels, write_answers
from sft.evaluation.marks import MarkedAnswer, TaskAgreement, agreements_of, grade_marked, has_marks
from sft.evaluation.scores import Evaluation
from sft.job_config import JobConfig
from sft.progress import Tell
from sft.run_folder import ANSWERS_PAGE
from sft.training.served_evaluation import ServedModels
from sft.training.vllm_evaluation import VllmModels
from sft.training.whole_evaluation import Measurement, WholeModelPath, measure_whole, models_of, prepare_measurement


def evaluate_models(
    job: JobConfig,
    wanted: Sequence[str],
    endpoint: Endpoint | None,
    console: Console,
    judge: PairJudge | None = None,
    vllm: VllmWish | None = None,
) -> int:
    """Measure the models that are wanted; returns the exit code.

    Args:
        job: the run, with the settings of `evaluate`.
        wanted: see `models_of`; with an endpoint, none are measured unless they are named.
        endpoint: a served model to measure, too.
        console: where tables go.
        judge: compares the answers of two models, if that is asked for.
        vllm: the models that are wanted answer in vLLM, on this machine.

    Raises:
        UserError: data, models or settings cannot be used.
    """
    config = job.sft
    served = ServedModels(EndpointClient(endpoint)) if endpoint else None
    models = models_of(config, wanted) if wanted or not served else []
    in_vllm = VllmModels(*vllm, lambda text: _say(text, console)) if vllm else None
    if in_vllm:
        models = [*map(in_vllm.of, models)]
    judging = judge.opened() if judge else None
    with preparation_shown(console) as report:
        measurement = prepare_measurement(config, report)
    show_made_data(measurement.made, console)
    measured = [*models, *([served.model] if served else [])]
    if judge:
        check_against(judge, measured, measurement)
    _say_what_is_asked(measurement, console)
    evaluations: list[Evaluation] = []
    try:
        if in_vllm:
            evaluations += [_measure_answers(config, measurement, m, in_vllm, console) for m in models]
        elif models:
            evaluations += _measure_whole(job, measurement, models, console)
        if served:
            evaluations.append(_measure_served(config, measurement, served, console))
    except TrainingError as error:
        console.print(styled("[red]The measurement cannot go on:[/] {}", str(error)))
        return FAILED
    _show(config, measurement, measured, evaluations, console)
    if judge and judging:
        compare_models(judge, judging, measured, measurement, console, _shown)
    return DONE


def _show(
    config: SftConfig,
    measurement: Measurement,
    models: Sequence[WholeModelPath],
    evaluations: Sequence[Evaluation],
    console: Console,
) -> None:
    paths = [answers_of(measurement.result_of(model)) for model in models]
    found = [read_scores(evaluation, path) for evaluation, path in zip(evaluations, paths, strict=True)]
    scores = [one for one in found if one is not None]
    show_results(evaluations, scores, config.data.clusters, console)
    console.print(f"answers and scores   {measurement.folder}", highlight=False, soft_wrap=True)
    marked, agreements = _judge_marked(measurement, console)
    if agreements:
        console.print(agreement_table(agreements))
    if scores:
        answers = {one.title: path for one, path in zip(found, paths, strict=True) if one is not None}
        page, questions = measurement.folder / ANSWERS_PAGE, measurement.folder / "questions"
        with byproduct("The page of the answers", "the same command: what is measured is kept", console):
            write_answers(page, AskedModels(config.run.name, answers, questions, scores, marked, agreements))
            console.print(f"to read them         {page}", highlight=False, soft_wrap=True)


def _judge_marked(measurement: Measurement, console: Console) -> tuple[list[MarkedAnswer], list[TaskAgreement]]:
    """What the judges think of the answers that people marked; nothing where there are none."""
    asked = measurement.asked
    if asked is None or not has_marks(asked.questions, asked.scores):
        return [], []
    with _shown("answers that people marked", console) as tell:
        marked = grade_marked(asked.questions, asked.scores, marks_of(measurement.folder), tell)
    return marked, agreements_of(marked, asked.scores)


def _measure_whole(
    job: JobConfig, measurement: Measurement, models: Sequence[WholeModelPath], console: Console
) -> list[Evaluation]:
    evaluations = []
    with workers_of(job, console) as open_model:
        for model in models:
            with _shown(model.name, console) as tell:
                own = job.sft if measurement.result_of(model).is_file() else laid_out(job.sft, model.path)
                evaluations.append(measure_whole(own, measurement, model, open_model, tell))
    return evaluations


def _measure_served(config: SftConfig, measurement: Measurement, served: ServedModels, console: Console) -> Evaluation:
    if measurement.asked and (num := sum(question.way == "choice" for question in measurement.asked.questions)):
        text = "prompts with options are answered in writing: a server gives no likelihoods of options"
        console.print(f"{served.model.name}: {num:,} {text}", highlight=False, markup=False)
    return _measure_answers(config, measurement, served.model, served, console)


def _measure_answers(
    config: SftConfig,
    measurement: Measurement,
    model: WholeModelPath,
    models: ServedModels | VllmModels,
    console: Console,
) -> Evaluation:
    models.in_vain.clear()
    with _shown(model.title, console) as tell:
        evaluation = measure_whole(config, measurement, model, models.open, tell)
    for reason, num in models.in_vain.most_common():
        console.print(styled("[yellow]{}[/] without an answer: {}", f"{num:,}", reason), highlight=False)
    return evaluation


def _say(text: str, console: Console) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _say_what_is_asked(measurement: Measurement, console: Console) -> None:
    if measurement.asked is None:
        text = "No prompt is asked, so losses are measured alone: evaluate.answers_per_task says how many are."
        console.print(text, highlight=False)
        return
    show_questions(measurement.folder / "questions", console)
    for task, score in measurement.asked.scores.items():
        console.print(f"{task}: {score.name}", highlight=False, markup=False)


@contextmanager
def _shown(name: str, console: Console) -> Iterator[Tell]:
    """While open, shows that something is done."""
    done = TextColumn("{task.completed:,} tokens and batches")
    columns = (TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), done, TimeElapsedColumn())
    if not console.is_terminal:
        console.print(f"measuring {name}", highlight=False, markup=False)
        yield lambda: None
        return
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda: bars.advance(task)
