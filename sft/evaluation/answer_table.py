"""The scores of answers as tables for a console of 100 columns: one for all scores, and what fell."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sft.evaluation.answer_scores import Clusters, Counts, ModelScores
from sft.evaluation.falls import Fall, falls
from sft.evaluation.score_comparison import KIND_TEXTS, ComparedRow, compared_means, compared_tasks
from sft.evaluation.score_texts import NOT_SEEN, NOT_SEEN_TEXT, difference_text, interval_text, score_text
from sft.evaluation.tables import MAX_TASKS, console_table
from sft.printable import counted, short_name
from sft.scoring.statistics import Difference

_MAX_MODELS = 3
_NAME_CHARS = 18
_SCORE_CHARS = 11
_TITLE_CHARS = 10
_MAX_FALLS = 10


def answer_tables(models: Sequence[ModelScores], clusters: Clusters) -> Iterator[Table]:
    """Everything about answers that a console shows; nothing if there are none.

    Args:
        models: in the order of training. Of more than three, the first and the last two are shown.
        clusters: of tasks.
    """
    if not models:
        return
    yield answer_table(models, clusters)
    if fallen := [fall for fall in falls(models) if fall.difference.is_seen]:
        yield _fall_table(models, fallen)


def answer_table(models: Sequence[ModelScores], clusters: Clusters) -> Table:
    """Task and shots by row, a column for each model."""
    has_gaps = any(_gap(score.counts) for model in models for score in model.tasks.values())
    most = _MAX_MODELS - has_gaps  # two more columns take the room
    shown = list(models) if len(models) <= most else [models[0], *models[1 - most :]]
    tasks, means = compared_tasks(shown), compared_means(shown, clusters)
    largest = sorted({row.name for row in tasks}, key=lambda name: -_size(tasks, name))[:MAX_TASKS]
    table = console_table("Scores of held-out answers in percent, with 95 % intervals")
    table.padding = 0
    table.add_column("task", no_wrap=True)
    table.add_column("shots", justify="right", no_wrap=True)
    table.add_column("score\n(chance)", no_wrap=True)
    for model in shown:
        table.add_column(_title(model), justify="right", no_wrap=True)
    if len(shown) > 1:
        table.add_column("change", justify="right", no_wrap=True)
    for title in ("an-\nswers", "ended\nitself", *(("no\nverdict", "not an-\nswered") if has_gaps else ())):
        table.add_column(title, justify="right", no_wrap=True)

    def add(row: ComparedRow, style: str = "") -> None:
        cells: list[RenderableType] = [Text(short_name(row.name, _NAME_CHARS)), str(row.shots), Text(_score_name(row))]
        cells += [interval_text(value, row.is_share) for value in row.values]
        cells += [_change(row.change, row)] if len(shown) > 1 else []
        cells += [f"{row.counts[-1].num_answered:,}", _both([_stopped(counts) for counts in row.counts])]
        if has_gaps:
            cells += [_both([f"{c.num_not_judged:,}" for c in row.counts])]
            cells += [_both([f"{c.num_not_answered:,}" for c in row.counts])]
        table.add_row(*cells, style=style)

    for unseen, kind in KIND_TEXTS.items():
        own = [row for row in tasks if row.unseen == unseen and row.name in largest]
        if own:
            table.add_section()
            table.add_row(Text(kind, style="yellow"))
        for row in own:
            add(row)
        for row in means:
            if row.unseen == unseen:
                add(row, "bold")
    table.caption = "\n".join(_captions(shown, len(models) - len(shown), [*means, *tasks]))
    return table


def _fall_table(models: Sequence[ModelScores], fallen: Sequence[Fall]) -> Table:
    more = len(fallen) - _MAX_FALLS
    table = console_table(f"What fell, {models[-1].title}")
    for title in ("task", "shots", "score", "was best", "was", "is", "change"):
        table.add_column(title, justify="right" if title in ("shots", "was", "is", "change") else "left")
    for fall in fallen[:_MAX_FALLS]:
        table.add_row(
            Text(short_name(fall.task, _NAME_CHARS)),
            str(fall.shots),
            Text(_score_name(fall)),
            Text(short_name(models[fall.earlier].title, _NAME_CHARS)),
            interval_text(fall.before, fall.is_share),
            interval_text(fall.now, fall.is_share),
            Text(difference_text(fall.difference, fall.is_share), style="red"),
        )
    if more > 0:
        table.caption = f"{more} more are in the report."
    return table


def _captions(shown: Sequence[ModelScores], num_left_out: int, rows: Sequence[ComparedRow]) -> Iterator[str]:
    if len(shown) > 1:
        yield f"Change: from {shown[0].title} to {shown[-1].title}, on the same questions."
    if any(row.change is not None and not row.change.is_seen for row in rows):
        yield f"{NOT_SEEN}: {NOT_SEEN_TEXT}."
    if (num_more := len({row.name for row in rows if row.score_name}) - MAX_TASKS) > 0:
        yield f"The {MAX_TASKS} largest tasks; {num_more} more are in the report."
    if num_left_out:
        yield f"{counted(num_left_out, 'evaluation')} in between: see the report."


def _change(change: Difference | None, row: ComparedRow) -> Text:
    colour = "dim"
    if change is not None and change.is_seen and row.score_name != "length":
        colour = "green" if change.value > 0 else "red"
    return Text(difference_text(change, row.is_share), style=colour)


def _stopped(counts: Counts) -> str:
    """How many of the written answers the model ended itself; empty if it wrote none."""
    return f"{100 * counts.stopped_share:.0f}" if counts.num_written else ""


def _both(texts: Sequence[str]) -> str:
    """Of the first model and of the last; once if they are the same."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}→{texts[-1]}"


def _gap(counts: Counts) -> int:
    return counts.num_not_judged + counts.num_not_answered


def _size(rows: Sequence[ComparedRow], name: str) -> int:
    return max(counts.num_answered for row in rows if row.name == name for counts in row.counts)


def _title(model: ModelScores) -> str:
    """`after` above the name of the stage."""
    return "\n".join(short_name(part, _TITLE_CHARS) for part in model.title.split(" ", 1))


def _score_name(row: ComparedRow | Fall) -> str:
    """Of a user's function, its own name; with the score of guessing, where there is one."""
    name = short_name(row.score_name.rpartition(":")[2], _SCORE_CHARS)
    return f"{name} ({score_text(row.chance, True)})" if row.chance == row.chance else name
