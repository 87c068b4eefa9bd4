"""The pictures of docs/LEARNING.md, from the JSON of what came out.

A point or bar is a mean over trainings, its error bar the interval over questions, and a small dot one training.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.learning.experiments import BASE, EXPERIMENTS, Group
from sft.evaluation.plot_parts import BEFORE, INK, LOOK, STAGE_COLOURS

_DOTS_PER_INCH = 110
_COLOURS = (*STAGE_COLOURS, "#F0E442", "#000000")
_MORE_COLOURS = ("#0072B2", "#D55E00")
_FLAN_GROUPS = (Group("unseen tasks", 0), Group("unseen tasks", 3))
_WIDTH = 0.84
_BAR_INCHES, _GAP_INCHES = 0.15, 0.45
_DOT_SPREAD = 0.2
_DOT: dict[str, Any] = {
    "color": "white",
    "markeredgecolor": INK,
    "markeredgewidth": 0.5,
    "markersize": 4.5,
    "zorder": 3,
}
Means = Mapping[tuple[str, Group], Mapping[str, Any]]
"""(model, group) → its mean."""


def draw(found: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Write a picture for each experiment that there is."""
    for name, own in found.items():
        means = {
            (mean["model"], Group(mean["group"], mean["shots"])): mean for mean in own["means"] if mean["way"] == "all"
        }
        if not means:
            continue
        with matplotlib.rc_context(LOOK):
            figure = _clusters(means) if name == "clusters" else _bars(means, name)
            path = folder / f"learning-{name}.png"
            figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
        yield path


def _clusters(means: Means) -> Figure:
    """FLAN's figure (arXiv 2109.01652, figure 6): the number of clusters in training against the unseen one's score."""
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, group, colour in zip(panels, _FLAN_GROUPS, _MORE_COLOURS, strict=True):
        models = [model for model, of in means if of == group and model != BASE]
        numbers = [int(model.partition("-")[0]) for model in models]
        own = [means[model, group] for model in models]
        for fold in zip(*(mean["by_training"] for mean in own), strict=False):
            axes.plot(numbers, fold, color=colour, alpha=0.18, linewidth=0.8)
        axes.errorbar(
            numbers,
            [mean["value"] for mean in own],
            _errors(own),
            color=colour,
            marker="o",
            capsize=3,
            label="tuned: mean over the held-out clusters",
        )
        axes.plot([], [], color=colour, alpha=0.3, linewidth=0.8, label="one held-out cluster")
        if (BASE, group) in means:
            base = means[BASE, group]["value"]
            axes.axhline(base, color=INK, linestyle="--", linewidth=1.2, label="base model")
        axes.set_xticks(numbers)
        axes.set_xlabel("clusters in training")
        axes.set_title("no example shown" if group.shots == 0 else f"{group.shots} examples shown", fontsize=9.5)
        axes.legend(fontsize=8, loc="best")
    panels[0].set_ylabel("score on the tasks of a cluster\nthat was not trained")
    _percent(panels[0])
    return figure


def _bars(means: Means, name: str) -> Figure:
    groups = [group for group in EXPERIMENTS[name].groups if any(of == group for _, of in means)]
    models = [model for model in EXPERIMENTS[name].models if any(of == model for of, _ in means)]
    width_inches = max(7.0, 1.0 + (_BAR_INCHES * len(models) + _GAP_INCHES) * len(groups))
    figure = Figure(figsize=(width_inches, 3.9), layout="constrained")
    axes: Axes = figure.subplots()
    axes.grid(visible=False, axis="x")
    width = _WIDTH / len(models)
    for number, model in enumerate(models):
        places = [place for place, group in enumerate(groups) if (model, group) in means]
        own = [means[model, groups[place]] for place in places]
        xs = np.array(places) + (number - (len(models) - 1) / 2) * width
        colour = BEFORE if model == BASE else _COLOURS[(number - 1) % len(_COLOURS)]
        values = [mean["value"] for mean in own]
        axes.bar(xs, values, 0.92 * width, color=colour, label=model, zorder=1)
        axes.errorbar(xs, values, _errors(own), fmt="none", ecolor=INK, elinewidth=1, capsize=1.5)
        for x, mean in zip(xs, own, strict=True):
            num = len(mean["by_training"])
            spread = (np.arange(num) - (num - 1) / 2) * _DOT_SPREAD * width
            axes.plot(x + spread, mean["by_training"], ".", **_DOT)
    labels = [f"{group.name}, {group.shots} shown" if group.shots else group.name for group in groups]
    labels = [label.replace(" ", "\n", 1).replace(", ", ",\n") for label in labels]
    axes.set_xticks(range(len(groups)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("score")
    _percent(axes)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8.5)
    return figure


def _percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _errors(own: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [[mean["value"] - mean["low"] for mean in own], [mean["high"] - mean["value"] for mean in own]]
