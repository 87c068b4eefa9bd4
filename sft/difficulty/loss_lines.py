"""What is known of each measured example, as JSON lines, for whoever wants to choose among them."""

from collections.abc import Iterator, Sequence

import numpy as np

from sft.data.token_store import TokenStore
from sft.difficulty.loss_table import Floats, ModelLosses
from sft.json_lines import json_line

_DIGITS = 5


def loss_lines(store: TokenStore, models: Sequence[ModelLosses]) -> Iterator[str]:
    """A line for each example that the first model was measured on, in the store's order.

    `file` and `line` say where its record stands; `ifd` and `loss_alone` are missing where nothing can be compared.
    """
    columns = {name: [model.table.column(name) for model in models] for name in ("loss", "loss_alone", "ifd")}
    tasks, sources = store.tasks, store.manifest["sources"]
    for row in np.flatnonzero(models[0].table.is_measured):
        where = store.location(int(row))
        about = {"row": int(row), "file": where.file, "line": where.number, "task": tasks[store.task_ids[row]]}
        if where.instance is not None:
            about["instance"] = where.instance
        about["source"] = sources[store.source_ids[row]]
        losses = {model.title: _known(columns, i, int(row)) for i, model in enumerate(models)}
        yield json_line({**about, "models": losses})


def _known(columns: dict[str, list[Floats]], model: int, row: int) -> dict[str, float]:
    values = {name: float(of_models[model][row]) for name, of_models in columns.items()}
    return {name: round(value, _DIGITS) for name, value in values.items() if np.isfinite(value)}
