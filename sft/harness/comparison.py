"""The scores of lm-evaluation-harness side by side, as a table of the form that held-out answers have.

An interval is the harness's standard error, to both sides. Where that is 0, because all examples have the same score,
or there is none, it is that of the examples (`sft.scoring.statistics`). Two models are compared example by example.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sft.evaluation.answer_scores import Counts
from sft.evaluation.score_comparison import NONE, ComparedRow, Pair
from sft.evaluation.score_texts import NOT_SEEN, NOT_SEEN_TEXT, difference_text, interval_text
from sft.evaluation.tables import MAX_TASKS, console_table
from sft.harness.results import HarnessScore
from sft.printable import counted, short_name
from sft.scoring.statistics import SHARE, Difference, Interval, Z, paired_difference, task_interval

_NAME_CHARS, _SCORE_CHARS, _TITLE_CHARS = 24, 18, 12
_MOST_MODELS = 3


def harness_rows(models: Sequence[Sequence[HarnessScore]]) -> list[ComparedRow]:
    """A row for each metric of each task that any of the models has: groups first, then in the harness's order."""
    of_models = [{score.key: score for score in scores} for scores in models]
    first = {key: score for scores in reversed(of_models) for key, score in scores.items()}
    keys = sorted(dict.fromkeys(key for scores in of_models for key in scores), key=lambda key: not first[key].is_group)
    return [_row([scores.get(key) for scores in of_models]) for key in keys]


def harness_table(titles: Sequence[str], rows: Sequence[ComparedRow]) -> Table:
    """For a console of 100 columns. Of more than three models, the first and the last two are shown."""
    places = list(range(len(titles)))
    places = places if len(places) <= _MOST_MODELS else [0, *places[1 - _MOST_MODELS :]]
    table = console_table("Scores of lm-evaluation-harness, with 95 % intervals")
    table.padding = (0, 1)
    table.add_column("task", no_wrap=True)
    table.add_column("shots", justify="right", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for place in places:
        table.add_column(short_name(titles[place], _TITLE_CHARS), justify="right", no_wrap=True)
    if len(places) > 1:
        table.add_column("change", justify="right", no_wrap=True)
    table.add_column("exam-\nples", justify="right", no_wrap=True)
    for row in rows[:MAX_TASKS]:
        cells: list[RenderableType] = [
            Text(short_name(row.name, _NAME_CHARS)),
            str(row.shots),
            Text(short_name(row.score_name, _SCORE_CHARS)),
        ]
        cells += [interval_text(row.values[place], row.is_share) for place in places]
        cells += [Text(difference_text(row.change, row.is_share))] if len(places) > 1 else []
        table.add_row(*cells, f"{max(counts.num_answered for counts in row.counts):,}")
    table.caption = "\n".join(_captions(titles, rows, len(titles) - len(places)))
    return table


def _captions(titles: Sequence[str], rows: Sequence[ComparedRow], num_left_out: int) -> list[str]:
    lines = ["Accuracies and the like are in percent, other metrics as they are."]
    if len(titles) > 1:
        lines.append(f"Change: from {titles[0]} to {titles[-1]}, on the same examples where each has a score.")
    if any(row.change is not None and not row.change.is_seen for row in rows):
        lines.append(f"{NOT_SEEN}: {NOT_SEEN_TEXT}.")
    if len(rows) > MAX_TASKS:
        lines.append(f"{counted(len(rows) - MAX_TASKS, 'row')} more: see the files.")
    if num_left_out:
        lines.append(f"{counted(num_left_out, 'model')} in between: see the files.")
    return lines


def _row(scores: Sequence[HarnessScore | None]) -> ComparedRow:
    known = [score for score in scores if score is not None]
    is_share = all(map(_is_share, known))
    places = [i for i, score in enumerate(scores) if score is not None]
    found = [(places[0], places[-1]), *pairwise(places)] if len(places) > 2 else [*pairwise(places)]
    return ComparedRow(
        name=known[0].task,
        shots=known[0].shots,
        unseen=False,
        values=tuple(NONE if score is None else _interval(score, is_share) for score in scores),
        pairs=tuple(Pair(i, j, _difference(scores[i], scores[j], is_share)) for i, j in found),
        counts=tuple(Counts(score.num_examples if score else 0) for score in scores),
        score_name=known[0].name,
        is_share=is_share,
    )


def _is_share(score: HarnessScore) -> bool:
    """Whether it is a mean of numbers between 0 and 1 of which more is better: the harness does not say."""
    every = [*score.examples.values(), score.value]
    return (
        score.is_higher_better and all(0 <= value <= 1 for value in every) and (bool(score.examples) or score.is_group)
    )


def _interval(score: HarnessScore, is_share: bool) -> Interval:
    num, scale = score.num_examples, SHARE if is_share else None
    if not score.stderr > 0:
        ends = task_interval(score.examples, scale) if score.examples else None
        low, high = (ends.low, ends.high) if ends else (math.nan, math.nan)
        return Interval(score.value, low, high, num)
    low, high = score.value - Z * score.stderr, score.value + Z * score.stderr
    return (
        Interval(score.value, max(low, 0.0), min(high, 1.0), num) if is_share else Interval(score.value, low, high, num)
    )


def _difference(first: HarnessScore | None, second: HarnessScore | None, is_share: bool) -> Difference:
    """On the same examples; of metrics that are no means of examples, and of groups, by both standard errors."""
    assert first is not None
    assert second is not None
    if first.examples and second.examples:
        return paired_difference(
            {first.task: first.examples}, {first.task: second.examples}, scale=SHARE if is_share else None
        )
    value = second.value - first.value
    is_known = first.stderr > 0 and second.stderr > 0
    half = Z * math.hypot(first.stderr, second.stderr) if is_known else math.inf
    return Difference(value, value - half, value + half, min(first.num_examples, second.num_examples), 0)
