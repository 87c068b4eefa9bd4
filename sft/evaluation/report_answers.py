"""What the report says of answers: their scores by task, the means, what fell, and the pictures."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from sft.evaluation import answer_plots
from sft.evaluation.answer_scores import Counts, ModelScores
from sft.evaluation.falls import Fall, falls
from sft.evaluation.run_records import RunRecords
from sft.evaluation.score_comparison import (
    KIND_TEXTS,
    OVER_CLUSTERS,
    OVER_EXAMPLES,
    OVER_TASKS,
    ComparedRow,
    compared_means,
    compared_tasks,
)
from sft.evaluation.score_texts import score_text, sentence
from sft.printable import counted, fit_to_print
from sft.run_folder import ANSWERS_PAGE

_COLUMNS = (
    ("num_answered", "answered"),
    ("stopped_share", "ended by itself"),
    ("num_not_judged", "not judged"),
    ("num_not_answered", "not answered"),
)


def answers_part(run: RunRecords) -> dict[str, Any]:
    """What the template shows; the run has answers."""
    models = run.scores
    means = compared_means(models, run.clusters)
    return {
        "titles": [model.title for model in models],
        "kinds": KIND_TEXTS,
        "tasks": compared_tasks(models),
        "means": means,
        "columns": [(name, title) for name, title in _COLUMNS if _is_shown(run.scores, name)],
        "counted": _counted,
        "clusters": run.clusters,
        "falls": [(fall, _link(run, fall)) for fall in falls(models)],
        "pairs": [(row, pair) for row in _main(means) for pair in row.pairs],
        "plots": {
            plot.__name__: Markup(plot(run))
            for plot in (answer_plots.means_plot, answer_plots.tasks_plot, answer_plots.curves_plot)
        },
    }


def answer_facts(run: RunRecords) -> Iterator[tuple[str, str, str]]:
    """For each kind of task and number of shots: the score of the first and the last model, and the change."""
    for row in _main(compared_means(run.scores, run.clusters)):
        first, last = (f"{score_text(row.values[i].value, True)}%" for i in (0, -1))
        label = f"score, {KIND_TEXTS[row.unseen]}, {counted(row.shots, 'shot')}"
        if row.change is None:
            yield label, last, f"{run.scores[-1].title}; no other measured yet"
        else:
            yield label, f"{first} → {last}", sentence(row.change, True)


def _main(means: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Of the means for each kind and number of shots, the one that counts: over clusters, else tasks, else examples."""
    order = (OVER_EXAMPLES, OVER_TASKS, OVER_CLUSTERS)
    best: dict[tuple[bool, int], ComparedRow] = {}
    for row in sorted(means, key=lambda row: order.index(row.name)):
        best[row.unseen, row.shots] = row
    return sorted(best.values(), key=lambda row: (not row.unseen, row.shots))


def _is_shown(models: Sequence[ModelScores], name: str) -> bool:
    """Questions are seldom left without an answer or a verdict."""
    every = [score.counts for model in models for score in model.tasks.values()]
    return not name.startswith("num_not") or any(getattr(counts, name) for counts in every)


def _counted(counts: Sequence[Counts], name: str) -> str:
    """A count of the first and of the last model; once if it is the same for all."""
    texts = [_text(getattr(one, name)) for one in counts]
    return texts[0] if len({*texts}) == 1 else f"{texts[0] or '–'} → {texts[-1] or '–'}"


def _text(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{100 * value:.0f}%" if value == value else ""


def _link(run: RunRecords, fall: Fall) -> str:
    """To the answers that lost."""
    titles = [model.title for model in run.scores]
    shown = {"task": fit_to_print(fall.task), "shots": fall.shots, "model": titles[-1], "against": titles[fall.earlier]}
    return f"{ANSWERS_PAGE}#{urlencode({**shown, 'result': 'lost'})}"
