"""Which examples of a store are shown: a random choice of those that match, always the same for a seed."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.schema import BoolArray, IntArray
from sft.seeds import derive_seed

_MAX_NAMED = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """The conditions for an example to be shown; None sets no condition."""

    task: str | None = None
    source: str | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    row: int | None = None

    def as_text(self) -> str:
        """The command-line options that set these conditions."""
        options = {name.replace("_", "-"): getattr(self, name) for name in self.__dataclass_fields__}
        return " ".join(f"--{name} {value}" for name, value in options.items() if value is not None)


def choose_rows(store: TokenStore, wanted: Wanted, num_rows: int, seed: int) -> IntArray:
    """At most `num_rows` matching rows of the store, in the store's order.

    Raises:
        UserError: no row matches; the message says what there is.
    """
    matching = np.flatnonzero(_match(store, wanted))
    if not len(matching):
        raise UserError(_no_match(store, wanted))
    rng = np.random.default_rng(derive_seed(seed, "inspect"))
    return np.sort(rng.permutation(matching)[:num_rows])


def _match(store: TokenStore, wanted: Wanted) -> BoolArray:
    matches = np.ones(len(store), dtype=bool)
    if wanted.task is not None:
        matches &= store.task_ids == _find(wanted.task, store.tasks, "task", "--task")
    if wanted.source is not None:
        matches &= store.source_ids == _find(wanted.source, store.manifest["sources"], "source", "--source")
    if wanted.min_tokens is not None:
        matches &= store.lengths >= wanted.min_tokens
    if wanted.max_tokens is not None:
        matches &= store.lengths <= wanted.max_tokens
    if wanted.row is not None:
        if not 0 <= wanted.row < len(store):
            raise UserError(f"--row {wanted.row}: the store has rows 0 to {len(store) - 1}.")
        matches &= np.arange(len(store)) == wanted.row
    return matches


def _find(name: str, known: Sequence[str], what: str, option: str) -> int:
    if name in known:
        return list(known).index(name)
    close = difflib.get_close_matches(name, known, n=1)
    more = f" and {len(known) - _MAX_NAMED} more" if len(known) > _MAX_NAMED else ""
    hint = f"Did you mean {close[0]!r}? " if close else ""
    there = f"The {what}s there: {', '.join(known[:_MAX_NAMED])}{more}."
    raise UserError(f"{option} {name}: no example in the store has this {what}. {hint}{there}")


def _no_match(store: TokenStore, wanted: Wanted) -> str:
    named = Wanted(task=wanted.task, source=wanted.source, row=wanted.row)
    rest = np.flatnonzero(_match(store, named))
    message = f"{wanted.as_text()}: no example in the store matches."
    if len(rest):
        lengths = store.lengths[rest]
        return f"{message} The {len(rest):,} without the limits have {lengths.min()} to {lengths.max()} tokens."
    if wanted.row is not None:
        task, source = store.task_ids[wanted.row], store.source_ids[wanted.row]
        about = f"is of task {store.tasks[task]} and source {store.manifest['sources'][source]}"
        return f"{message} Row {wanted.row} {about}."
    assert wanted.source is not None, "a task that is in the store has examples"
    of_source = store.source_ids == list(store.manifest["sources"]).index(wanted.source)
    tasks = [store.tasks[i] for i in np.unique(store.task_ids[of_source])][:_MAX_NAMED]
    return f"{message} The tasks of source {wanted.source}: {', '.join(tasks) or 'none, as it has no examples'}."
