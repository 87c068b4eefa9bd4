"""Draws the balance of a stage from the rows of its mixture: a picture beside the stage's packs.

Bars show what the packs hold, ticks what was wanted: where they meet, the mixture is as the config says. Beside them:
how often a task's examples are repeated, and the share of them that is used. The largest tasks are shown; a line counts
the rest. Invariant: the same rows give the same bytes, and the file is there whole or not at all.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sft.data.planning.mixture import MixtureRow
from sft.evaluation.plot_parts import LOOK
from sft.printable import short_name

MAX_TASKS = 40
_MAX_LABEL_CHARS = 40
_BAR_INCHES = 0.29
_HEIGHT = 0.62
_BEFORE, _DRAWN, _EPOCHS, _COVERAGE = "#C3CAD1", "#0072B2", "#56B4E9", "#009E73"


def draw_balance(path: Path, stage_name: str, unit: str, rows: Sequence[MixtureRow]) -> None:
    """Write the picture as a PNG.

    Args:
        path: where it goes; an older picture there is replaced.
        stage_name: for the title.
        unit: what the shares are counted in.
        rows: all tasks, also those that the stage does not train on.
    """
    with matplotlib.rc_context(LOOK):
        figure = balance_figure(stage_name, unit, rows)
        aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # drawn as a box
            figure.savefig(aside, format="png", dpi=110, metadata={"Software": None})
    aside.replace(path)


def balance_figure(stage_name: str, unit: str, rows: Sequence[MixtureRow]) -> Figure:
    """Three panels with a line for each task: share, epochs, coverage."""
    ordered = sorted(rows, key=lambda row: (-row.share, -row.share_before, row.task))
    shown, hidden = ordered[:MAX_TASKS], ordered[MAX_TASKS:]
    # Titles, axes and legend take the same height whatever the number of tasks.
    figure = Figure(figsize=(11.5, 1.75 + _BAR_INCHES * len(shown)), layout="constrained")
    share, epochs, coverage = figure.subplots(1, 3, sharey=True, width_ratios=(5, 2.2, 1.8))
    figure.suptitle(f"Balance of stage {stage_name}", x=0.01, ha="left", fontweight="bold")
    ys = range(len(shown))

    share.barh(ys, [r.share_before for r in shown], 0.94, color=_BEFORE, alpha=0.55, label="of the data, before mixing")
    share.barh(ys, [r.share for r in shown], _HEIGHT, color=_DRAWN, label="of the stage")
    share.plot([r.share_target for r in shown], ys, "|", color="black", markersize=13, markeredgewidth=1.8,
               label="of the stage, wanted")  # fmt: skip
    widest = max([0.01, *(max(r.share, r.share_before, r.share_target) for r in shown)])
    for y, row in enumerate(shown):
        reach = max(row.share, row.share_before, row.share_target)
        share.text(reach + 0.015 * widest, y, f"{row.share:.1%}", va="center", fontsize=8.5)
    share.set_xlim(0, 1.1 * widest)
    share.xaxis.set_major_formatter(PercentFormatter(1.0))
    share.xaxis.set_major_locator(MaxNLocator(6))
    share.set_title(f"share of the {unit.replace('_', ' ')}", loc="left", fontsize=10)
    share.set_yticks(ys, [short_name(r.task, _MAX_LABEL_CHARS) for r in shown])
    share.set_ylim(len(shown) - 0.4, -0.6)

    most = max([1.0, *(r.epochs for r in shown)])
    bars = epochs.barh(ys, [r.epochs for r in shown], _HEIGHT, color=_EPOCHS)
    # On white, because the line of one epoch may run behind it.
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    epochs.bar_label(bars, [f"{r.epochs:,.2f}" for r in shown], padding=3, fontsize=8.5, bbox=on_white)
    epochs.axvline(1.0, color="#555555", linewidth=1.0, linestyle=(0, (3, 3)))
    epochs.set_xlim(0, 1.3 * most)
    epochs.xaxis.set_major_locator(MaxNLocator(4))
    epochs.set_title("epochs", loc="left", fontsize=10)

    bars = coverage.barh(ys, [r.coverage for r in shown], _HEIGHT, color=_COVERAGE)
    coverage.bar_label(bars, [f"{r.coverage:.0%}" for r in shown], padding=3, fontsize=8.5)
    coverage.set_xlim(0, 1.35)
    coverage.set_xticks([0.0, 0.5, 1.0], ["0%", "50%", "100%"])
    coverage.set_title("examples used", loc="left", fontsize=10)

    for axes in (share, epochs, coverage):
        _quieten(axes, len(shown))
    figure.legend(*share.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    if hidden:
        rest = sum(row.share for row in hidden)
        share.set_xlabel(f"The {len(shown)} largest tasks. Not shown: {len(hidden)} with {rest:.1%} of the stage.")
    return figure


def _quieten(axes: Axes, num_tasks: int) -> None:
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    # Readers of a tall picture see only one end of it at a time.
    axes.tick_params(axis="x", top=num_tasks > 20, labeltop=num_tasks > 20)
