"""The plots of `benchmarks.growth`: cost by size, both on logarithmic axes, where a power is a straight line.

A point is a median, its bar goes from the least to the largest value, k is the exponent. A dashed line grows in
proportion to the size, where cost is expected to.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sft.evaluation.plot_parts import LOOK

if TYPE_CHECKING:
    from benchmarks.growth import Curve

_PANELS = {
    "growth-training.png": ("tokens a pack", "layers", "ranks"),
    "growth-records.png": ("records",),
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DOTS_PER_INCH = 110
_LEAST_FACTOR = 4


def draw(curves: Sequence["Curve"], folder: Path) -> Iterator[Path]:
    """Write the pictures for which there are curves."""
    for name, sweeps in _PANELS.items():
        panels = [(sweep, unit) for sweep in sweeps for unit in _units(curves, sweep)]
        if panels:
            with matplotlib.rc_context({**LOOK, "svg.fonttype": "none"}):
                figure = Figure(figsize=(3.4 * len(panels), 3.3), layout="constrained")
                rows: Any = figure.subplots(1, len(panels), squeeze=False)
                for axes, (sweep, unit) in zip(rows[0], panels, strict=True):
                    own = [c for c in curves if c.sweep == sweep and _kind(c.unit) == unit]
                    _panel(axes, own, sweep, unit)
                figure.savefig(folder / name, dpi=_DOTS_PER_INCH, metadata={"Software": None})
            yield folder / name


def _units(curves: Sequence["Curve"], sweep: str) -> list[str]:
    return list(dict.fromkeys(_kind(curve.unit) for curve in curves if curve.sweep == sweep))


def _kind(unit: str) -> str:
    """CPU and wall time share a panel."""
    return "seconds" if unit in ("s", "s of CPU") else unit


def _panel(axes: Axes, curves: Sequence["Curve"], sweep: str, unit: str) -> None:
    whats = list(dict.fromkeys(curve.what for curve in curves))
    for curve in curves:
        sizes = sorted(curve.values)
        medians = [curve.medians[size] for size in sizes]
        least = [curve.medians[size] - min(curve.values[size]) for size in sizes]
        most = [max(curve.values[size]) - curve.medians[size] for size in sizes]
        is_wall = curve.unit == "s" and any(c.what == curve.what and c.unit == "s of CPU" for c in curves)
        axes.errorbar(
            sizes,
            medians,
            (least, most),
            color=_COLOURS[whats.index(curve.what) % len(_COLOURS)],
            marker="s" if is_wall else "o",
            markersize=4,
            markerfacecolor="white" if is_wall else None,
            linewidth=0.9 if is_wall else 1.6,
            linestyle=":" if is_wall else "-",
            capsize=2,
            label=f"{curve.what}, {'wall' if is_wall else 'CPU' if 'CPU' in curve.unit else curve.unit}: "
            f"k = {curve.exponent:.2f}",
        )
    axes.set_xscale("log", base=2 if max(curves[0].values) < 10_000 else 10)
    axes.set_yscale("log")
    _widen(axes)
    if unit == "seconds" and sweep != "ranks":
        _proportional(axes, curves[0])
    axes.set_xlabel(sweep)
    axes.set_ylabel(unit)
    sizes = sorted(curves[0].values)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=7.5, borderaxespad=0.2)


def _widen(axes: Axes) -> None:
    """Show a factor of four at least: small differences are to look small."""
    low, high = axes.get_ylim()
    more = max(1.0, _LEAST_FACTOR * low / high) ** 0.5
    axes.set_ylim(low / more, high * more)


def _proportional(axes: Axes, curve: "Curve") -> None:
    low, high = axes.get_ylim()
    sizes = sorted(curve.values)
    first = curve.medians[sizes[0]]
    ends = [sizes[0], sizes[-1]]
    axes.plot(ends, [first, first * ends[1] / ends[0]], "--", color="#AEB6BF", linewidth=1.2, zorder=0)
    axes.set_ylim(low, high)
