"""What the plots of a run share: their look, the axis of its steps, bars with names, and their way into a page.

Text stays text (`svg.fonttype: none`): it is small and selectable, and the reader's fonts draw names in any script.
Colours are those of Okabe and Ito, which differ for any colour vision, always on white.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sft.evaluation.run_records import RunRecords, StageRecord
from sft.printable import short_name
from sft.scoring.metric import Metric

WIDTH_INCHES = 10.0
STAGE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BEFORE, RESTART, INK = "#AEB6BF", "#B3261E", "#333333"
_MAX_LABEL_CHARS = 36
_LEFT_TO_RIGHT_MARK = "\u200e"
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    # Names from data may hold dollar signs.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EA",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
"""Matplotlib settings for every plot of a run."""


def scale_to(metric: Metric, axis: Axis) -> None:
    """Percent on the axis of a share."""
    if metric.is_share:
        axis.set_major_formatter(PercentFormatter(1.0))


def placed(run: RunRecords) -> Iterator[tuple[int, StageRecord]]:
    """Each stage with the number of steps before it."""
    first = 0
    for stage in run.stages:
        yield first, stage
        first += stage.num_steps


def timeline(run: RunRecords, labels: Sequence[str], height_inches: float) -> tuple[Figure, list[Axes]]:
    """Panels over the steps of the run, with the boundaries of the stages and the restarts."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0])
    end = max((first + len(stage.steps) for first, stage in placed(run)), default=1)
    for axes, label in zip(panels, labels, strict=True):
        axes.set_ylabel(label)
        axes.set_xlim(-0.01 * end, 1.01 * end)
        for first, stage in placed(run):
            if first:
                axes.axvline(first, color="#888888", linewidth=0.9)
            for step in stage.restarts:
                axes.axvline(first + step, color=RESTART, linewidth=0.9, linestyle=(0, (4, 3)))
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for first, stage in placed(run):
        # A name wider than its stage would overlap the next.
        if len(stage.steps) / end > 0.012 * len(stage.name):
            panels[0].text(first, 1.02, f" {stage.name}", transform=panels[0].get_xaxis_transform(),
                           color=stage_colour(stage.index), fontweight="bold")  # fmt: skip
    return figure, panels


def bars(num_bars: int, inches_each: float) -> tuple[Figure, Axes]:
    """An empty figure for bars that lie below each other."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.1 + inches_each * num_bars), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(num_bars - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    # Readers of a tall plot see only one end of it at a time.
    axes.tick_params(axis="x", top=num_bars > 20, labeltop=num_bars > 20)
    return figure, axes


def name_bars(axes: Axes, tasks: Sequence[str], notes: Sequence[str] = ()) -> None:
    """The names of the bars, at their left, each with a note behind it where there are notes."""
    ends = notes or [""] * len(tasks)
    labels = [
        f"{apart(short_name(task, _MAX_LABEL_CHARS - len(end)))}{end}" for task, end in zip(tasks, ends, strict=True)
    ]
    axes.set_yticks(range(len(tasks)), labels)
    axes.tick_params(axis="y", length=0)


def apart(name: str) -> str:
    """The name; one of a script that runs from right to left does not pull along what stands around it.

    Without its mark, a reader's browser puts a number behind the name at the left of it (Unicode Annex 9, rule W2).
    """
    runs_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return f"{name}{_LEFT_TO_RIGHT_MARK}" if runs_left else name


def legend_above(axes: Axes, extra: Sequence[Patch | Line2D] = ()) -> None:
    """A legend for the whole figure, above it."""
    handles = [*axes.get_legend_handles_labels()[0], *extra]
    # More columns than this would be wider than the plot.
    axes.figure.legend(handles=handles, loc="outside upper left", ncols=max(1, min(5, len(handles))))


def stage_colour(stage_index: int) -> str:
    """The colour of a stage, the same in all plots."""
    return STAGE_COLOURS[stage_index % len(STAGE_COLOURS)]


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element whose ids all begin with `name`."""
    text = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The reader's fonts draw the text; the font here only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata=nothing)
    svg = text.getvalue()
    named = re.compile(r'(\sid="|url\(#|href="#)')
    return re.sub(r"<[^<>]+>", lambda tag: named.sub(rf"\g<1>{name}-", tag[0]), svg[svg.index("<svg") :])
