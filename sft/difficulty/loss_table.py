"""The losses of a store's examples for one model, on disk: a row for each example, zeros until it is measured.

Examples are measured in a random order: whatever is measured is a fair sample, and the same command adds more to it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from sft.atomic_files import read_json
from sft.errors import UserError
from sft.schema import BoolArray, IntArray
from sft.seeds import derive_seed

Floats = NDArray[np.float64]

COLUMNS = ("nll", "num_tokens", "nll_behind", "nll_alone", "num_compared")
"""Sums in nats over the learned tokens of an example, and how many these are.

`nll` over all `num_tokens`, behind the prompt; `nll_behind` and `nll_alone` over the same `num_compared` of them."""

QUOTIENTS = {
    "loss": ("nll", "num_tokens"),
    "loss_alone": ("nll_alone", "num_compared"),
    "ifd": ("nll_behind", "nll_alone"),
}
"""What is shown, and which column is divided by which for it."""


class LossTable:
    """The table of one model; one process writes."""

    def __init__(self, path: Path, num_examples: int, may_write: bool = False) -> None:
        """Open the table; if it may be written, make an empty one where there is none.

        Raises:
            FileNotFoundError: there is none.
            UserError: it is damaged, or cannot be written.
        """
        self.path = path
        shape = num_examples, len(COLUMNS)
        try:
            if may_write and not path.exists():
                _make(path, shape)
            self._rows: Floats = np.load(path, mmap_mode="r+" if may_write else "r")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
        except (ValueError, EOFError) as error:
            raise UserError(f"{path} is damaged: {error}. Delete it, and measure again.") from None
        if self._rows.shape != shape:
            raise UserError(f"{path} is damaged: {self._rows.shape} in place of {shape}. Delete it, and measure again.")

    @property
    def about(self) -> Path:
        """Which model it is of, a file beside it."""
        return self.path.with_suffix(".json")

    @property
    def is_measured(self) -> BoolArray:
        """(num_examples,): in each example, some token is learned."""
        measured: BoolArray = self._rows[:, COLUMNS.index("num_tokens")] > 0
        return measured

    def missing(self, seed: int, num: int | None = None) -> IntArray:
        """Examples to measure, in random order, until `num` are measured, or all."""
        order = np.random.default_rng(derive_seed(seed, "score")).permutation(len(self._rows))
        # What is there may be of another order, such as that of another seed.
        missing = order[~self.is_measured[order]]
        return missing if num is None else missing[: max(0, num - int(self.is_measured.sum()))]

    def put(self, rows: IntArray, losses: Floats) -> None:
        """Keep the losses of these examples."""
        self._rows[rows] = losses
        self._rows.flush()  # type: ignore[attr-defined]  # it is a memory map

    def column(self, name: str) -> Floats:
        """One of `QUOTIENTS`; NaN where it is not known: (num_examples,)."""
        above, below = (self._rows[:, COLUMNS.index(column)] for column in QUOTIENTS[name])
        quotients = np.full(len(self._rows), np.nan)
        np.divide(above, below, out=quotients, where=below > 0)
        return quotients


class ModelLosses(NamedTuple):
    """The losses of one model."""

    title: str
    table: LossTable


def known_losses(folder: Path, num_examples: int) -> list[ModelLosses]:
    """Those of all models that a folder has.

    Raises:
        UserError: one is damaged.
    """
    tables = [LossTable(path, num_examples) for path in sorted(folder.glob("[!.]*.npy"))]
    return [ModelLosses(read_json(table.about)["title"], table) for table in tables]


def row_in_words(models: Sequence[ModelLosses], row: int) -> str:
    """What is known of an example: `base: loss 1.68, IFD 0.37`; empty where nothing is."""
    known = []
    for title, table in models:
        values = [(name, float(table.column(column)[row])) for name, column in (("loss", "loss"), ("IFD", "ifd"))]
        if texts := [f"{name} {value:.2f}" for name, value in values if np.isfinite(value)]:
            known.append(f"{title}: {', '.join(texts)}")
    return " · ".join(known)


def _make(path: Path, shape: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    open_memmap(aside, mode="w+", dtype=np.float64, shape=shape).flush()  # zeros, which take no room
    os.replace(aside, path)
