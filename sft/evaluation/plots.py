"""Draws the records of a run as SVG text, with one function for each plot of the report.

Text stays text (`svg.fonttype: none`): it is small and selectable, and the reader's fonts draw names in any script.
Colours are those of Okabe and Ito, which differ for any colour vision, always on white.
Invariant: the same records
give the same bytes, and no two plots of a run share an element id.

The stages' steps follow each other on one axis; its 0 is the untrained model.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from sft.evaluation.run_records import PlanRecord, RunRecords, StageRecord
from sft.evaluation.score_rows import rows_of, title_of
from sft.evaluation.scores import LOSS, Evaluation, metrics_of
from sft.metrics import StepMetrics
from sft.printable import short_name
from sft.scoring.metric import Metric

Floats = NDArray[np.float64]

_WIDTH_INCHES = 10.0
_STAGE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BEFORE, _RESTART, _INK = "#AEB6BF", "#B3261E", "#333333"
_TRAINED = "loss"
"""The metric that is also known for every training step."""
_MAX_POINTS = 1500
_MAX_LABEL_CHARS = 36
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    # Names from data may hold dollar signs.
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EA",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
"""Matplotlib settings for every plot of a run."""


def loss_plot(run: RunRecords) -> str:
    """Training loss by step, raw and smoothed, with the held-out loss of every evaluation; below it, other metrics."""
    others = {n: m for n, m in metrics_of([*run.evaluations, *run.mid_stage]).items() if n != _TRAINED}
    labels = [LOSS.text, *(metric.title for metric in others.values())]
    with matplotlib.rc_context(LOOK):
        figure, panels = _timeline(run, labels, height_inches=4.0 + 1.6 * len(others))
        for first, stage in _placed(run):
            _draw_steps(panels[0], first, stage, lambda s: s.loss, _colour(stage.index), f"training, {stage.name}")
        _draw_scores(panels[0], run, _TRAINED, "held-out, all tasks")
        for axes, (name, metric) in zip(panels[1:], others.items(), strict=True):
            _draw_scores(axes, run, name, "")
            _scale_to(metric, axes.yaxis)
        _scale_by_range(panels[0], [step.loss for step in run.steps])
        _legend(panels[0], run)
        return _svg(figure, "loss")


def _draw_scores(axes: Axes, run: RunRecords, metric: str, label: str) -> None:
    """A metric of all tasks, at the place in the run of each evaluation."""
    places: dict[int | None, tuple[int, int]] = {None: (0, 0)}
    places |= {stage.index: (first, first + stage.num_steps) for first, stage in _placed(run)}
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
        figure, (top, bottom) = _timeline(run, ["learning rate", "gradient norm"], height_inches=4.4)
        for first, stage in _placed(run):
            colour = _colour(stage.index)
            xs, rates = _curve(first, stage, lambda step: step.lr)
            top.plot(*_thinned(xs, rates), color=colour, **_marker(xs))
            _draw_steps(bottom, first, stage, lambda step: step.grad_norm, colour, stage.name)
        top.set_ylim(bottom=0)
        top.yaxis.set_major_formatter("{x:.1e}")
        _scale_by_range(bottom, [step.grad_norm for step in run.steps])
        return _svg(figure, "schedule")


def throughput_plot(run: RunRecords) -> str:
    """Tokens and supervised tokens per second by step."""
    with matplotlib.rc_context(LOOK):
        figure, (axes,) = _timeline(run, ["tokens per second"], height_inches=3.2)
        for number, (first, stage) in enumerate(_placed(run)):
            labels = ("tokens", "supervised tokens") if number == 0 else ("", "")
            _draw_steps(axes, first, stage, lambda step: step.tokens_per_second, "#5F6B76", labels[0])
            _draw_steps(axes, first, stage, lambda s: s.supervised_tokens_per_second, _STAGE_COLOURS[0], labels[1])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        _legend(axes, run)
        return _svg(figure, "throughput")


def memory_plot(run: RunRecords) -> str:
    """Peak memory of the first rank since its stage began, by step; empty if that is not recorded."""
    with matplotlib.rc_context(LOOK):
        figure, (axes,) = _timeline(run, ["peak memory, GiB"], height_inches=3.2)
        for label, colour, value in _PEAKS:
            curves = [_curve(first, stage, value) for first, stage in _placed(run)]
            recorded = [(xs, ys) for xs, ys in curves if np.isfinite(ys).any()]
            for number, (xs, ys) in enumerate(recorded):
                name = "" if number else label
                axes.plot(*_thinned(xs, ys), color=colour, linewidth=1.8, label=name, **_marker(xs))
        if not axes.get_legend_handles_labels()[0]:
            return ""
        axes.set_ylim(bottom=0)
        _legend(axes, run)
        return _svg(figure, "memory")


def _known(gib: float | None) -> float:
    return math.nan if gib is None else gib


# NaN for what was not recorded, or does not exist on CPUs.
_PEAKS: tuple[tuple[str, str, Callable[[StepMetrics], float]], ...] = (
    ("resident in the process", "#5F6B76", lambda step: _known(step.peak_resident_gib)),
    ("reserved on the GPU", _STAGE_COLOURS[5], lambda step: _known(step.peak_reserved_gib)),
    (
        "allocated on the GPU",
        _STAGE_COLOURS[0],
        lambda step: step.peak_memory_gib if math.isfinite(_known(step.peak_reserved_gib)) else math.nan,
    ),
)


def mixture_plot(stage_index: int, plan: PlanRecord) -> str:
    """Each task's share before mixing and in the stage, the largest share in the stage first."""
    shares = sorted(plan.mixture, key=lambda row: (-row.share, -row.share_before, row.task))
    with matplotlib.rc_context(LOOK):
        figure, axes = _bars(len(shares), inches_each=0.32)
        ys = np.arange(len(shares), dtype=float)
        axes.barh(ys - 0.19, [s.share_before for s in shares], 0.36, color=_BEFORE, label="before")
        axes.barh(ys + 0.19, [s.share for s in shares], 0.36, color=_colour(stage_index), label="in this stage")
        axes.plot([s.share_target for s in shares], ys + 0.19, "|", color="black", markersize=8, label="target")
        _name_bars(axes, [s.task for s in shares])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"share of the {plan.unit.replace('_', ' ')}")
        _legend_above(axes)
        return _svg(figure, f"mixture-{stage_index}")


def score_plot(evaluations: Sequence[Evaluation], metric: str) -> str:
    """A metric of each task, from the base model over the stages; tasks never trained on are shaded."""
    rows, metrics = [*rows_of(evaluations, metric)], metrics_of(evaluations)
    about = metrics[metric]
    values: Floats = np.array([row.values for row in rows])  # (tasks, evaluations)
    ys = np.arange(len(rows))
    with matplotlib.rc_context(LOOK):
        figure, axes = _bars(len(rows), inches_each=0.27)
        axes.hlines(ys, np.fmin.reduce(values, 1), np.fmax.reduce(values, 1), color="#C9CED3", linewidth=2, zorder=1)
        for y, row in enumerate(rows):
            if row.unseen:
                axes.axhspan(y - 0.5, y + 0.5, color="#FBF1D5", linewidth=0, zorder=0)
        for number, evaluation in enumerate(evaluations):
            colour, edge = "white", _INK
            if evaluation.stage_index is not None:
                colour = edge = _colour(evaluation.stage_index)
            axes.plot(values[:, number], ys, "o", color=colour, markeredgecolor=edge, markersize=6.5, zorder=2 + number,
                      label=title_of(evaluation))  # fmt: skip
        _name_bars(axes, [row.name for row in rows])
        better = "" if about.better == "neither" else f" ({about.better} is better)"
        axes.set_xlabel(f"held-out {about.text}{better}")
        _scale_to(about, axes.xaxis)
        extra = [Patch(color="#FBF1D5", label="unseen task: never trained on")] if any(r.unseen for r in rows) else []
        _legend_above(axes, extra)
        return _svg(figure, f"heldout-{[*metrics].index(metric)}")


def _scale_to(metric: Metric, axis: Axis) -> None:
    if metric.is_share:
        axis.set_major_formatter(PercentFormatter(1.0))


def _placed(run: RunRecords) -> Iterator[tuple[int, StageRecord]]:
    """Each stage with the number of steps before it."""
    first = 0
    for stage in run.stages:
        yield first, stage
        first += stage.num_steps


def _timeline(run: RunRecords, labels: Sequence[str], height_inches: float) -> tuple[Figure, list[Axes]]:
    """Panels over the steps of the run, with the boundaries of the stages and the restarts."""
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0])
    end = max((first + len(stage.steps) for first, stage in _placed(run)), default=1)
    for axes, label in zip(panels, labels, strict=True):
        axes.set_ylabel(label)
        axes.set_xlim(-0.01 * end, 1.01 * end)
        for first, stage in _placed(run):
            if first:
                axes.axvline(first, color="#888888", linewidth=0.9)
            for step in stage.restarts:
                axes.axvline(first + step, color=_RESTART, linewidth=0.9, linestyle=(0, (4, 3)))
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for first, stage in _placed(run):
        # A name wider than its stage would overlap the next.
        if len(stage.steps) / end > 0.012 * len(stage.name):
            panels[0].text(first, 1.02, f" {stage.name}", transform=panels[0].get_xaxis_transform(),
                           color=_colour(stage.index), fontweight="bold")  # fmt: skip
    return figure, panels


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


def _bars(num_bars: int, inches_each: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_INCHES, 1.1 + inches_each * num_bars), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(num_bars - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    # Readers of a tall plot see only one end of it at a time.
    axes.tick_params(axis="x", top=num_bars > 20, labeltop=num_bars > 20)
    return figure, axes


def _name_bars(axes: Axes, tasks: Sequence[str]) -> None:
    axes.set_yticks(range(len(tasks)), [short_name(task, _MAX_LABEL_CHARS) for task in tasks])
    axes.tick_params(axis="y", length=0)


def _legend(axes: Axes, run: RunRecords) -> None:
    restart = Line2D([], [], color=_RESTART, linestyle=(0, (4, 3)), linewidth=1.1, label="restart")
    _legend_above(axes, [restart] if any(stage.restarts for stage in run.stages) else [])


def _legend_above(axes: Axes, extra: Sequence[Patch | Line2D] = ()) -> None:
    handles = [*axes.get_legend_handles_labels()[0], *extra]
    # More columns than this would be wider than the plot.
    axes.figure.legend(handles=handles, loc="outside upper left", ncols=max(1, min(5, len(handles))))


def _colour(stage_index: int) -> str:
    return _STAGE_COLOURS[stage_index % len(_STAGE_COLOURS)]


def _svg(figure: Figure, name: str) -> str:
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
