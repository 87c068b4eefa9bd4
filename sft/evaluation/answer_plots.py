"""Draws the scores of answers: before and after, unseen tasks beside trained ones, without examples and with some.

The picture of means is that of FLAN (arXiv 2109.01652, figure 1): unseen tasks, the untuned model beside the tuned one.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from sft.evaluation.answer_scores import ModelScores, kinds_of, shots_of
from sft.evaluation.plot_parts import (
    BEFORE,
    INK,
    LOOK,
    STAGE_COLOURS,
    WIDTH_INCHES,
    as_svg,
    bars,
    legend_above,
    name_bars,
    placed,
    stage_colour,
    timeline,
)
from sft.evaluation.run_records import RunRecords
from sft.evaluation.score_comparison import KIND_TEXTS, compared_tasks, main_intervals
from sft.printable import counted
from sft.scoring.statistics import Interval

_UNSEEN_SHADE = "#FBF1D5"
_KIND_COLOURS = {True: STAGE_COLOURS[1], False: STAGE_COLOURS[0]}
_MOST_NUMBERED = 24
_ABOVE: dict[str, Any] = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 8}
_LINES = ("-", "--", ":", "-.")


def means_plot(run: RunRecords) -> str:
    """Bars: the mean of unseen and of trained tasks for each number of shots, a bar for each model."""
    models = run.scores
    every = [(unseen, shots) for unseen in kinds_of(models) for shots in shots_of(models)]
    intervals = {group: main_intervals(models, run.clusters, *group) for group in every}
    groups = [group for group, found in intervals.items() if any(one.num_examples for one in found)]
    if not groups:
        return ""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        width = 0.8 / len(models)
        for number, model in enumerate(models):
            xs = np.arange(len(groups)) + (number - (len(models) - 1) / 2) * width
            found = [intervals[group][number] for group in groups]
            values = [one.value for one in found]
            axes.bar(xs, values, 0.92 * width, color=_colour(model), label=model.title)
            axes.errorbar(xs, values, _errors(found), fmt="none", ecolor=INK, elinewidth=1, capsize=2)
            for x, one in zip(xs, found, strict=True):
                if one.num_examples and len(groups) * len(models) <= _MOST_NUMBERED:
                    axes.annotate(f"{100 * one.value:.0f}", (x, one.high), **_ABOVE)
        labels = [f"{KIND_TEXTS[unseen]}\n{counted(shots, 'shot')}" for unseen, shots in groups]
        axes.set_xticks(range(len(groups)), labels)
        axes.tick_params(axis="x", length=0)
        _percent(axes, f"score, mean over {'clusters' if run.clusters else 'tasks'}")
        axes.set_ylim(bottom=0)
        legend_above(axes)
        return as_svg(figure, "answers-means")


def tasks_plot(run: RunRecords) -> str:
    """A row for each task and number of shots: each model's score with its interval, and that of guessing."""
    models = run.scores
    rows = [row for row in compared_tasks(models) if row.is_share]
    if not rows:
        return ""
    with matplotlib.rc_context(LOOK):
        figure, axes = bars(len(rows), inches_each=0.1 + 0.13 * len(models))
        for y, row in enumerate(rows):
            if row.unseen:
                axes.axhspan(y - 0.5, y + 0.5, color=_UNSEEN_SHADE, linewidth=0, zorder=0)
            if row.chance == row.chance:
                axes.plot([row.chance] * 2, [y - 0.4, y + 0.4], color="#888888", linewidth=1.2, zorder=1)
        for number, model in enumerate(models):
            ys = np.arange(len(rows)) + 0.7 * ((number + 0.5) / len(models) - 0.5)
            found = [row.values[number] for row in rows]
            values, colour = [one.value for one in found], _colour(model)
            axes.errorbar(values, ys, xerr=_errors(found), fmt="none", ecolor=colour, elinewidth=1.4, zorder=2)
            edge = INK if model.stage_index is None else colour
            axes.plot(values, ys, "o", color=colour, markeredgecolor=edge, markersize=5, label=model.title, zorder=3)
        several = len(shots_of(models)) > 1
        name_bars(axes, [row.name for row in rows], [f" · {counted(row.shots, 'shot')}" for row in rows if several])
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("score")
        extra: list[Patch | Line2D] = []
        if any(row.unseen for row in rows):
            extra.append(Patch(color=_UNSEEN_SHADE, label="unseen task: never trained on"))
        if any(row.chance == row.chance for row in rows):
            extra.append(Line2D([], [], color="#888888", linewidth=1.2, label="guessing"))
        legend_above(axes, extra)
        return as_svg(figure, "answers-tasks")


def curves_plot(run: RunRecords) -> str:
    """The means of unseen and of trained tasks over the steps; empty if no stage was measured within."""
    if not run.mid_stage_scores:
        return ""
    first_steps = {stage.index: first for first, stage in placed(run)}
    ends = {stage.index: first + stage.num_steps for first, stage in placed(run)}
    every = (*run.scores, *run.mid_stage_scores)
    known = [model for model in every if model.stage_index is None or model.stage_index in ends]
    at = {id(model): _place(model, first_steps, ends) for model in known}
    models = sorted(known, key=lambda model: at[id(model)])
    with matplotlib.rc_context(LOOK):
        figure, (axes,) = timeline(run, ["score"], height_inches=3.4)
        for unseen in kinds_of(models):
            for number, shots in enumerate(shots_of(models)):
                found = main_intervals(models, run.clusters, unseen, shots)
                if not any(one.num_examples for one in found):
                    continue
                xs = [at[id(model)] for model in models]
                label = f"{KIND_TEXTS[unseen]}, {counted(shots, 'shot')}"
                line, colour = _LINES[number % len(_LINES)], _KIND_COLOURS[unseen]
                lows, highs = [one.low for one in found], [one.high for one in found]
                axes.plot(xs, [one.value for one in found], line, marker="o", markersize=4, color=colour, label=label)
                axes.fill_between(xs, lows, highs, color=colour, alpha=0.12, linewidth=0)
        _percent(axes, f"score, mean over {'clusters' if run.clusters else 'tasks'}")
        legend_above(axes)
        return as_svg(figure, "answers-curves")


def _place(model: ModelScores, first_steps: dict[int, int], ends: dict[int, int]) -> int:
    if model.stage_index is None:
        return 0
    return ends[model.stage_index] if model.step is None else first_steps[model.stage_index] + model.step


def _errors(found: Sequence[Interval]) -> list[list[float]]:
    return [[one.value - one.low for one in found], [one.high - one.value for one in found]]


def _percent(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _colour(model: ModelScores) -> str:
    return BEFORE if model.stage_index is None else stage_colour(model.stage_index)
