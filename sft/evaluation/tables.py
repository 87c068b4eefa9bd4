"""Turns evaluations and a stage's mixture into tables for a console of 100 columns.

Invariant: the `all` row counts every task, shown or not. A table shows at most 30 tasks, the largest, and
says how many more the report shows.
"""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sft.data.planning.mixture import MixtureRow
from sft.evaluation.score_rows import ScoreRow, rows_of, title_of, total_of
from sft.evaluation.scores import Evaluation, metrics_of
from sft.printable import short_name
from sft.scoring.metric import Metric

MAX_TASKS = 30
_MAX_EVALUATIONS = 4


def score_table(evaluations: Sequence[Evaluation], metric: str) -> Table:
    """A metric by task: of the base model, after each stage, and the change from the first to the last.

    Args:
        evaluations: in the order of training. Of more than four, the first and the last three are shown.
        metric: one of those that were measured.
    """
    shown = list(evaluations)
    if len(shown) > _MAX_EVALUATIONS:
        shown = [shown[0], *shown[1 - _MAX_EVALUATIONS :]]
    rows = [*rows_of(shown, metric)]
    largest = sorted(rows, key=lambda row: -row.num_counted)[:MAX_TASKS]
    table = _table(f"Held-out {metrics_of(evaluations)[metric].text}", len(rows))
    table.add_column("task", max_width=28, no_wrap=True, overflow="ellipsis")
    table.add_column("", style="yellow", no_wrap=True)
    for evaluation in shown:
        table.add_column(title_of(evaluation), justify="right", max_width=20 if len(shown) < 4 else 12, overflow="fold")
    table.add_column("change", justify="right", no_wrap=True)
    for row in rows:
        if row in largest:
            _add_scores(table, row)
    table.add_section()
    _add_scores(table, total_of(shown, metric), "bold")
    if len(shown) < len(evaluations):
        left_out = f"{len(evaluations) - len(shown)} evaluations in between are in the report."
        table.caption = f"{table.caption} {left_out}" if table.caption else left_out
    return table


def mixture_table(stage_name: str, rows: Sequence[MixtureRow]) -> Table:
    """For each task: its size, its share before mixing, its target and actual share, and its repetitions."""
    table = _table(f"Mixture of stage {stage_name}", len(rows))
    table.add_column("\n\ntask", max_width=28, no_wrap=True, overflow="ellipsis")
    table.padding = 0  # eleven columns
    for title in ("exam-\nples\nbefore", "sup.\ntok.\nbefore", "\nshare\nbefore"):
        table.add_column(title, justify="right", style="dim", no_wrap=True, min_width=6)
    after = ("exam-\nples\nafter", "sup.\ntok.\nafter", "\nshare\ntarget", "\nshare\nafter")
    for title in (*after, "\n\nepochs", "\ncover-\nage", "tokens\nre-\npeated"):
        table.add_column(title, justify="right", no_wrap=True, min_width=6)
    # Largest first, by what the stage trains on.
    for row in sorted(rows, key=lambda row: (-row.share, -row.share_before, row.task))[:MAX_TASKS]:
        _add_mixture(table, Text(short_name(row.task)), [row])
    table.add_section()
    _add_mixture(table, Text("all"), rows, style="bold")
    return table


def _add_mixture(table: Table, name: Text, rows: Sequence[MixtureRow], style: str = "") -> None:
    """The counts of one task, or of all tasks together."""
    num_before, num_after = sum(row.num_examples_before for row in rows), sum(row.num_examples for row in rows)
    num_trained = sum(row.coverage * row.num_examples_before for row in rows)
    table.add_row(
        name,
        short_count(num_before),
        short_count(sum(row.num_supervised_tokens_before for row in rows)),
        percent(sum(row.share_before for row in rows)),
        short_count(num_after),
        short_count(sum(row.num_supervised_tokens for row in rows)),
        percent(sum(row.share_target for row in rows)),
        percent(sum(row.share for row in rows)),
        number(num_after / num_before if num_before else math.nan, 2),
        f"{num_trained / num_before:.0%}" if num_before else "–",
        short_count(sum(row.num_tokens_repeated for row in rows)),
        style=style,
    )


def number(value: float, num_digits: int) -> str:
    """The number with this many digits after the point; a dash if it is not finite."""
    return f"{value:,.{num_digits}f}" if math.isfinite(value) else "–"


def percent(part: float, *, signed: bool = False) -> str:
    """A share as a percentage with one digit; a dash if it is not finite."""
    if not math.isfinite(part):
        return "–"
    # A true minus sign, and no sign on what rounds to zero.
    text = f"{100 * part:+.1f}%" if signed and abs(part) >= 0.0005 else f"{100 * abs(part):.1f}%"
    return text.replace("-", "−")


def value_text(metric: Metric, value: float, num_digits: int = 4) -> str:
    """A value of the metric; a dash if it was not measured."""
    return percent(value) if metric.is_share else number(value, num_digits)


def change_text(metric: Metric, change: float) -> str:
    """How much it changed: percentage points for a share, else relative to the first value."""
    return percent(change, signed=True).replace("%", " pp" if metric.is_share else "%")


def short_count(count: float) -> str:
    """A count in at most five characters: exact below ten thousand, then three digits and a unit."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= max(limit, 1e4):
            value = count / limit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"
    return f"{count:,.0f}"


def _table(title: str, num_tasks: int) -> Table:
    table = console_table(title)
    if (more := num_tasks - MAX_TASKS) > 0:
        table.caption = f"The {MAX_TASKS} largest tasks; {more} more are in the report."
    return table


def console_table(title: str) -> Table:
    """An empty table in the look of all of them."""
    return Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        min_width=56,
        pad_edge=False,
        collapse_padding=True,
    )


def _add_scores(table: Table, row: ScoreRow, style: str = "") -> None:
    colour = {True: "green", False: "red", None: ""}[row.is_better]
    shown_change = Text(change_text(row.metric, row.change), style=colour)
    values = [value_text(row.metric, value) for value in row.values]
    table.add_row(Text(short_name(row.name)), "unseen" if row.unseen else "", *values, shown_change, style=style)
