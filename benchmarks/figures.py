"""What a benchmark found, beside its goals: one Markdown table for people and docs, one JSON for programs."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "ray", "numpy", "datasets")
_HEAD = "| part | what | median | from | to | goal | |\n|---|---|---:|---:|---:|---|---|"


@dataclass(frozen=True)
class Figure:
    """One measured thing: its values, repetition by repetition, and what their median has to reach."""

    part: str
    what: str
    values: Sequence[float]
    least: float | None = None
    most: float | None = None
    error: str | None = None
    """Why there are no values."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_missed(self) -> bool:
        """A value that is no number meets no goal."""
        if self.error is not None:
            return True
        above = self.least is None or self.median >= self.least
        return not (above and (self.most is None or self.median <= self.most))

    @property
    def goal(self) -> str:
        if self.least is None:
            return "" if self.most is None else f"≤ {self.most:g}"
        return f"≥ {self.least:g}"

    @property
    def verdict(self) -> str:
        if self.error is not None:
            return "FAILED"
        return "" if not self.goal else "missed" if self.is_missed else "met"

    @property
    def row(self) -> str:
        """A line of the table."""
        numbers = ["", "", ""] if self.error is not None else [self.median, min(self.values), max(self.values)]
        cells = [self.part, self.what + (f": {self.error}" if self.error else ""), *map(shown, numbers)]
        return f"| {' | '.join([*cells, self.goal, self.verdict])} |"


def shown(number: float | str) -> str:
    """Three digits that count, or all of a large number."""
    if isinstance(number, str):
        return number
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"


def table_of(figures: Iterable[Figure]) -> str:
    """All figures, ready to be pasted into a page."""
    rows, last = [], ""
    for figure in figures:
        shared = figure.part == last
        last = figure.part
        row = figure.row
        rows.append(row.replace(f"| {figure.part} |", "| |", 1) if shared else row)
    return "\n".join([_HEAD, *rows])


def write_json(path: Path, figures: Iterable[Figure], about: Mapping[str, Any]) -> None:
    content = {
        **about,
        "figures": [{**vars(figure), "goal": figure.goal, "verdict": figure.verdict} for figure in figures],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def about_machine(*folders: Path | None) -> dict[str, Any]:
    """The machine, how busy it is now, the versions of what is measured, and the date; `folders` hold more packages."""
    own = {name: found for name in _PACKAGES if (found := _version(name))}
    more = distributions(path=[str(folder) for folder in folders if folder])
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _first_of("/proc/cpuinfo", "model name") or platform.processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load_before": os.getloadavg()[0],
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **own, **{each.name: each.version for each in more}},
    }


def said_of(about: Mapping[str, Any]) -> str:
    """One sentence of `about_machine`, for the line below a table."""
    machine = about["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']:g} GiB, load before "
        f"{machine['load_before']:.1f}; {versions}; {about['date'][:10]}."
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _first_of(file: str, key: str) -> str | None:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
