"""The part of the verb `evaluate` in which a model judges pairs of answers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.answer_files import answers_of, pairs_of, preferences_of
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint
from sft.errors import UserError
from sft.evaluation.judged_answers import read_judged
from sft.evaluation.pairs import JudgedPair, PairTotals, judge_pairs, preferences_in, totals_of
from sft.evaluation.tables import MAX_TASKS, percent
from sft.printable import short_name
from sft.progress import Tell
from sft.scoring.judge_prompt import DEFAULT_RUBRIC, rubric_text
from sft.scoring.model_judge import JUDGE_PATIENCE
from sft.training.whole_evaluation import Measurement, WholeModelPath

Shown = Callable[[str, Console], AbstractContextManager[Tell]]

_BETTER = "Better: wins and half of the ties, with its 95 % interval. Two orders that disagree are a tie."
_AGREES = "A win: the judge prefers the record's own answer, as people do. Agrees: wins and half of the ties."


class PairJudge(NamedTuple):
    """Who judges, and against what."""

    endpoint: Endpoint
    against: str
    """The name of a model that is measured."""
    rubric: str = DEFAULT_RUBRIC
    """A text, or a file."""

    def opened(self) -> EndpointClient:
        """What asks it, after a look whether it answers.

        Raises:
            UserError: it does not, or the rubric cannot be read.
        """
        try:
            rubric_text(self.rubric)
        except ValueError as error:
            raise UserError(f"--judge-rubric {self.rubric}: {error}") from None
        client = EndpointClient(self.endpoint, JUDGE_PATIENCE)
        client.check()
        return client


def check_against(judge: PairJudge, models: Sequence[WholeModelPath], measurement: Measurement) -> None:
    """Check that there are pairs.

    Raises:
        UserError: the model to compare with is not measured, or is the only one, or nothing is asked.
    """
    names = [model.name for model in models]
    if judge.against not in names:
        raise UserError(f"--judge-against {judge.against}: measured are {', '.join(names)}. Name one of them.")
    if len(models) == 1:
        raise UserError(f"--judge-against {judge.against}: no other model is measured. Add one with --model.")
    if measurement.asked is None:
        raise UserError("--judge-against: no prompt is asked. Set evaluate.answers_per_task=50, for example.")


def compare_models(
    judge: PairJudge,
    client: EndpointClient,
    models: Sequence[WholeModelPath],
    measurement: Measurement,
    console: Console,
    shown: Shown,
) -> None:
    """Have each other model's answers judged against those of `judge.against`, and show who won.

    Raises:
        UserError: no more can be asked.
    """
    [other] = [model for model in models if model.name == judge.against][:1]
    assert measurement.asked is not None
    for model in models:
        if model == other:
            continue
        files = pairs_of(measurement.result_of(model), measurement.result_of(other))
        answers = (_answers(measurement, model), _answers(measurement, other))
        with shown(f"{model.name} against {other.name}", console) as tell:
            pairs = judge_pairs(measurement.asked.questions, answers, client, rubric_text(judge.rubric), files, tell)
        title = f"{model.name} against {other.name}, judged by {client.endpoint.model}"
        console.print(_table(title, pairs, "better", _BETTER))
    _compare_with_people(judge, client, measurement, console, shown)


def _compare_with_people(
    judge: PairJudge, client: EndpointClient, measurement: Measurement, console: Console, shown: Shown
) -> None:
    """Show how often the judge prefers what people prefer; nothing where no record holds that."""
    assert measurement.asked is not None
    questions, answers = preferences_in(measurement.asked.questions)
    if not questions:
        return
    with shown("what people prefer", console) as tell:
        files = preferences_of(measurement.folder)
        pairs = judge_pairs(questions, answers, client, rubric_text(judge.rubric), files, tell)
    console.print(_table(f"what people prefer, judged by {client.endpoint.model}", pairs, "agrees", _AGREES))


def _answers(measurement: Measurement, model: WholeModelPath) -> dict[str, str]:
    return {one.key: one.answer.text for one in read_judged(answers_of(measurement.result_of(model)))}


def _table(title: str, pairs: Sequence[JudgedPair], rate: str, caption: str) -> Table:
    table = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("task", max_width=28, no_wrap=True, overflow="ellipsis")
    for name in ("wins", "ties", "losses", "not judged", rate):
        table.add_column(name, justify="right")
    by_task: dict[str, list[JudgedPair]] = {}
    for pair in pairs:
        by_task.setdefault(pair.task, []).append(pair)
    largest = sorted(by_task, key=lambda task: -len(by_task[task]))[:MAX_TASKS]
    for task in (task for task in by_task if task in largest):
        _add(table, short_name(task), totals_of(by_task[task]))
    table.add_section()
    _add(table, "all", totals_of(pairs), "bold")
    return table


def _add(table: Table, name: str, totals: PairTotals, style: str = "") -> None:
    counts = (totals.num_wins, totals.num_ties, totals.num_losses, totals.num_not_judged)
    rate = totals.rate
    shown = f"{percent(rate.value)} [{percent(rate.low)}, {percent(rate.high)}]"
    table.add_row(Text(name), *(f"{count:,}" for count in counts), shown, style=style)
