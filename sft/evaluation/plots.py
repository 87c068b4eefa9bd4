"""Draws the records of a run as SVG text, with one function for each plot of the report.

Invariant: the same records give the same bytes, and no two plots of a run share an element id.

The stages' steps follow each other on one axis; its 0 is the untrained model.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, PercentFormatter
from numpy.typing import NDArray

from sft.difficulty.summary import Difficulty
from sft.evaluation.plot_parts import (
    BEFORE,
    INK,
    LOOK,
    RESTART,
    STAGE_COLOURS,
    as_svg,
    bars,
    legend_above,
    name_bars,
    placed,
    scale_to,
    stage_colour,
    timeline,
)
from sft.evaluation.run_records import PlanRecord, RunRecords, StageRecord
from sft.evaluation.score_rows import rows_of, title_of
from sft.evaluation.scores import LOSS, Evaluation, metrics_beside_answers, metrics_of
from sft.metrics import StepMetrics

Floats = NDArray[np.float64]

_TRAINED = "loss"
"""The metric that is also known for every training step."""
_MAX_POINTS = 1500


def loss_plot(run: RunRecords) -> str:
    """Training loss by step, raw and smoothed, with the held-out loss of every evaluation; below it, other metrics."""
    every = (metrics_beside_answers if run.scores else metrics_of)([*run.evaluations, *run.mid_stage])
    others = {name: metric for name, metric in every.items() if name != _TRAINED}
    labels = [LOSS.text, *(metric.title for metric in others.values())]
    with matplotlib.rc_context(LOOK):
        figure, panels = timeline(run, labels, height_inches=4.0 + 1.6 * len(others))
        for first, stage in placed(run):
            _draw_steps(panels[0], first, stage, lambda s: s.loss, stage_colour(stage.index), f"training, {stage.name}")
        _draw_scores(panels[0], run, _TRAINED, "held-out, all tasks")
        for axes, (name, metric) in zip(panels[1:], others.items(), strict=True):
            _draw_scores(axes, run, name, "")
            scale_to(metric, axes.yaxis)
        _scale_by_range(panels[0], [step.loss for step in run.steps])
        _legend(panels[0], run)
        return as_svg(figure, "loss")


def _draw_scores(axes: Axes, run: RunRecords, metric: str, label: str) -> None:
    """A metric of all tasks, at the place in the run of each evaluation."""
    places: dict[int | None, tuple[int, int]] = {None: (0, 0)}
    places |= {stage.index: (first, first + stage.num_steps) for first, stage in placed(run)}
    measured = []
    for evaluation in (*run.evaluations, *run.mid_stage):
        if evaluation.stage_index in places:
            first, end = places[evaluation.stage_index]
            measured.append((end if evaluation.step is None else first + evaluation.step, evaluation.value(metric)))
    if measured:
        xs, ys = zip(*sorted(measured), strict=True)
        axes.plot(xs, ys, ":D", color="black", linewidth=1.2, markersize=6, markeredgecolor="white",
                  label=label, zorder=5)  # fmt: skip


def schedule_plot(run: RunRecords) -> str:
    """Learning rate and gradient norm by step."""
    with matplotlib.rc_context(LOOK):
        figure, (top, bottom) = timeline(run, ["learning rate", "gradient norm"], height_inches=4.4)
        for first, stage in placed(run):
            colour = stage_colour(stage.index)
            xs, rates = _curve(first, stage, lambda step: step.lr)
            top.plot(*_thinned(xs, rates), color=colour, **_marker(xs))
            _draw_steps(bottom, first, stage, lambda step: step.grad_norm, colour, stage.name)
        top.set_ylim(bottom=0)
        top.yaxis.set_major_formatter("{x:.1e}")
        _scale_by_range(bottom, [step.grad_norm for step in run.steps])
        return as_svg(figure, "schedule")


def throughput_plot(run: RunRecords) -> str:
    """Tokens and supervised tokens per second by step."""
    with matplotlib.rc_context(LOOK):
        figure, (axes,) = timeline(run, ["tokens per second"], height_inches=3.2)
        for number, (first, stage) in enumerate(placed(run)):
            labels = ("tokens", "supervised tokens") if number == 0 else ("", "")
            _draw_steps(axes, first, stage, lambda step: step.tokens_per_second, "#5F6B76", labels[0])
            _draw_steps(axes, first, stage, lambda s: s.supervised_tokens_per_second, STAGE_COLOURS[0], labels[1])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        _legend(axes, run)
        return as_svg(figure, "throughput")


def memory_plot(run: RunRecords) -> str:
    """Peak memory of the first rank since its stage began, by step; empty if that is not recorded."""
    with matplotlib.rc_context(LOOK):
        figure, (axes,) = timeline(run, ["peak memory, GiB"], height_inches=3.2)
        for label, colour, value in _PEAKS:
            curves = [_curve(first, stage, value) for first, stage in placed(run)]
            recorded = [(xs, ys) for xs, ys in curves if np.isfinite(ys).any()]
            for number, (xs, ys) in enumerate(recorded):
                name = "" if number else label
                axes.plot(*_thinned(xs, ys), color=colour, linewidth=1.8, label=name, **_marker(xs))
        if not axes.get_legend_handles_labels()[0]:
            return ""
        axes.set_ylim(bottom=0)
        _legend(axes, run)
        return as_svg(figure, "memory")


def _known(gib: float | None) -> float:
    return math.nan if gib is None else gib


# NaN for what was not recorded, or does not exist on CPUs.
_PEAKS: tuple[tuple[str, str, Callable[[StepMetrics], float]], ...] = (
    ("resident in the process", "#5F6B76", lambda step: _known(step.peak_resident_gib)),
    ("reserved on the GPU", STAGE_COLOURS[5], lambda step: _known(step.peak_reserved_gib)),
    (
        "allocated on the GPU",
        STAGE_COLOURS[0],
        lambda step: step.peak_memory_gib if math.isfinite(_known(step.peak_reserved_gib)) else math.nan,
    ),
)


def mixture_plot(stage_index: int, plan: PlanRecord) -> str:
    """Each task's share before mixing and in the stage, the largest share in the stage first."""
    shares = sorted(plan.mixture, key=lambda row: (-row.share, -row.share_before, row.task))
    with matplotlib.rc_context(LOOK):
        figure, axes = bars(len(shares), inches_each=0.32)
        ys = np.arange(len(shares), dtype=float)
        axes.barh(ys - 0.19, [s.share_before for s in shares], 0.36, color=BEFORE, label="before")
        axes.barh(ys + 0.19, [s.share for s in shares], 0.36, color=stage_colour(stage_index), label="in this stage")
        axes.plot([s.share_target for s in shares], ys + 0.19, "|", color="black", markersize=8, label="target")
        name_bars(axes, [s.task for s in shares])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"share of the {plan.unit.replace('_', ' ')}")
        legend_above(axes)
        return as_svg(figure, f"mixture-{stage_index}")


def score_plot(evaluations: Sequence[Evaluation], metric: str) -> str:
    """A metric of each task, from the base model over the stages; tasks never trained on are shaded."""
    rows, metrics = [*rows_of(evaluations, metric)], metrics_of(evaluations)
    about = metrics[metric]
    values: Floats = np.array([row.values for row in rows])  # (tasks, evaluations)
    ys = np.arange(len(rows))
    with matplotlib.rc_context(LOOK):
        figure, axes = bars(len(rows), inches_each=0.27)
        axes.hlines(ys, np.fmin.reduce(values, 1), np.fmax.reduce(values, 1), color="#C9CED3", linewidth=2, zorder=1)
        for y, row in enumerate(rows):
            if row.unseen:
                axes.axhspan(y - 0.5, y + 0.5, color="#FBF1D5", linewidth=0, zorder=0)
        for number, evaluation in enumerate(evaluations):
            colour, edge = "white", INK
            if evaluation.stage_index is not None:
                colour = edge = stage_colour(evaluation.stage_index)
            axes.plot(values[:, number], ys, "o", color=colour, markeredgecolor=edge, markersize=6.5, zorder=2 + number,
                      label=title_of(evaluation))  # fmt: skip
        name_bars(axes, [row.name for row in rows])
        better = "" if about.better == "neither" else f" ({about.better} is better)"
        axes.set_xlabel(f"held-out {about.text}{better}")
        scale_to(about, axes.xaxis)
        extra = [Patch(color="#FBF1D5", label="unseen task: never trained on")] if any(r.unseen for r in rows) else []
        legend_above(axes, extra)
        return as_svg(figure, f"heldout-{[*metrics].index(metric)}")


def difficulty_plot(difficulty: Difficulty) -> str:
    """Each task's IFD: the median, and the range of the middle 80 % of its examples."""
    tasks = difficulty.tasks
    ys = np.arange(len(tasks))
    low, middle, high = np.array([task.ifd for task in tasks]).T
    with matplotlib.rc_context(LOOK):
        figure, axes = bars(len(tasks), inches_each=0.27)
        axes.axvline(1, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), label="the prompt does not help")
        axes.hlines(ys, low, high, color="#C9CED3", linewidth=4, zorder=1, label="10 % to 90 % of the examples")
        axes.plot(middle, ys, "o", color=STAGE_COLOURS[0], markersize=6.5, label="median")
        name_bars(axes, [task.task for task in tasks])
        axes.set_xlim(left=0)
        axes.set_xlabel(f"IFD for {difficulty.models[0]}: loss of the answer behind its prompt / alone")
        legend_above(axes)
        return as_svg(figure, "difficulty")


def _curve(first: int, stage: StageRecord, value: Callable[[StepMetrics], float]) -> tuple[Floats, Floats]:
    """A value of each step, at its place in the run."""
    xs = np.array([first + step.step + 1 for step in stage.steps], dtype=float)
    return xs, np.array([value(step) for step in stage.steps], dtype=float)


def _draw_steps(
    axes: Axes, first: int, stage: StageRecord, value: Callable[[StepMetrics], float], colour: str, label: str
) -> None:
    """A value of each step: a light line, with a smoothed line over it."""
    xs, ys = _curve(first, stage, value)
    if len(xs):
        axes.plot(*_thinned(xs, ys), color=colour, alpha=0.28, linewidth=0.8)
        axes.plot(*_thinned(xs, _smoothed(ys)), color=colour, linewidth=1.8, label=label, **_marker(xs))


def _smoothed(values: Floats) -> Floats:
    """The mean over a window of a twentieth of the values around each; values that are not finite are left out."""
    kernel = np.ones(min(len(values), 2 * (len(values) // 40) + 1))
    finite = np.isfinite(values)
    sums = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    counts = np.convolve(finite.astype(float), kernel, mode="same")
    means: Floats = np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0.5)
    return means


def _thinned(xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
    """The lowest and the highest point of each bin of a long curve: it looks the same and stays small."""
    if len(xs) <= _MAX_POINTS:
        return xs, ys
    keep = {0, len(xs) - 1}
    for part in np.array_split(np.arange(len(xs)), _MAX_POINTS // 2):
        known = part[np.isfinite(ys[part])]
        if len(known):
            keep |= {int(known[ys[known].argmin()]), int(known[ys[known].argmax()])}
    kept = np.array(sorted(keep))
    return xs[kept], ys[kept]


def _marker(xs: Floats) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.0} if len(xs) <= 30 else {}


def _scale_by_range(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic axis if a linear one would flatten the curve under its spikes."""
    finite = [value for value in values if np.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 20 * float(np.median(finite)):
        axes.set_yscale("log")


def _legend(axes: Axes, run: RunRecords) -> None:
    restart = Line2D([], [], color=RESTART, linestyle=(0, (4, 3)), linewidth=1.1, label="restart")
    legend_above(axes, [restart] if any(stage.restarts for stage in run.stages) else [])
