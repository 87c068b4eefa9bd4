"""Contamination: which training examples share a run of tokens with a held-out example, and with which one.

The text is compared as token keys, which ignore case and surrounding white space (`token_keys`). A run lies in one
passage: control tokens begin a new passage, so the text that a template writes around a turn is not compared with the
turn. Two texts that the tokenizer cuts into different tokens are different here.

A run that many training examples with different prompts contain is template text or a common phrase and shows nothing
(Brown et al., 2020, appendix C, ignore runs that more than ten training documents contain). A passage shorter than a
run is not compared: equal prompts are on one side anyway. The store is read in pieces, so the memory needed grows with
the held-out examples, not with the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sft.data.token_keys import CONTROL
from sft.data.token_store import TokenStore
from sft.schema import BoolArray, IntArray

Hashes = npt.NDArray[np.uint64]

MAX_PROMPTS = 10
"""A run in training examples with more different prompts than this is a common phrase."""
MAX_PAIRS = 100
"""The most pairs that are listed for people to look at."""

_CHUNK_TOKENS = 1 << 20
_MAX_WAITING = 1 << 22
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What training and held-out examples have in common."""

    training: BoolArray  # (num_examples,)
    """True for each training example that shares a run with a held-out one."""
    held_out: BoolArray  # (num_examples,)
    """True for each held-out example that shares a run with a training one."""
    counts: dict[tuple[str, str], int]
    """(Task of the training example, task of the held-out one) → training examples."""
    pairs: tuple[tuple[int, int], ...]
    """Some training examples, each with one held-out example that it shares a run with."""


@dataclass(frozen=True, slots=True)
class _HeldOutRuns:
    """The distinct runs of the held-out examples, sorted, and the examples that contain them."""

    runs: Hashes  # (num_runs,)
    run_rows: IntArray  # (num_places,), into runs, rising
    example_ids: IntArray  # (num_places,), rising for each run
    may_be_there: BoolArray  # (2**k,), by the upper k bits of a run: False where no run has them
    shift: np.uint64

    def find(self, hashes: Hashes) -> tuple[IntArray, IntArray]:
        """Which of `hashes` are runs of held-out examples, and which run each of these is."""
        maybe = np.flatnonzero(self.may_be_there[hashes >> self.shift])
        rows = np.searchsorted(self.runs, hashes[maybe])
        rows[rows == len(self.runs)] = 0
        found = self.runs[rows] == hashes[maybe] if len(self.runs) else np.zeros(0, dtype=bool)
        return maybe[found], rows[found]


def overlapping_examples(store: TokenStore, held_out: BoolArray, length: int) -> Overlap:
    """The training examples that share a run of `length` tokens with a held-out example.

    Args:
        store: its tokens and token keys are read.
        held_out: (num_examples,), True for the examples that are measured on.
        length: the length of a run, counting only tokens that say something.
    """
    index = _index_runs(store, np.flatnonzero(held_out), length)
    rows, training_ids = _find_in_training(store, np.flatnonzero(~held_out), index, length)
    touched = index.example_ids[_is_among(rows, len(index.runs))[index.run_rows]]
    firsts = index.example_ids[np.searchsorted(index.run_rows, rows)]
    shown, at = np.unique(training_ids, return_index=True)
    return Overlap(
        training=_is_among(training_ids, len(held_out)),
        held_out=_is_among(touched, len(held_out)),
        counts=_count_by_task(store, index, rows, training_ids),
        pairs=tuple(zip(shown[:MAX_PAIRS].tolist(), firsts[at[:MAX_PAIRS]].tolist(), strict=True)),
    )


def _index_runs(store: TokenStore, example_ids: IntArray, length: int) -> _HeldOutRuns:
    found = [(np.zeros(0, np.uint64), np.zeros(0, np.int64)), *_read_runs(store, example_ids, length)]
    hashes, owners = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    is_first = _is_first(hashes)
    runs = hashes[is_first]
    # Sixteen cells for each run, so fifteen of sixteen other runs need no search.
    num_bits = int(np.clip((16 * len(runs)).bit_length(), 10, 27))
    shift = np.uint64(64 - num_bits)
    may_be_there = np.zeros(1 << num_bits, dtype=bool)
    may_be_there[runs >> shift] = True
    return _HeldOutRuns(runs, np.cumsum(is_first) - 1, owners[order], may_be_there, shift)


def _find_in_training(
    store: TokenStore, example_ids: IntArray, index: _HeldOutRuns, length: int
) -> tuple[IntArray, IntArray]:
    """Each held-out run that one of these examples contains, and that example; without common phrases."""
    is_common = np.zeros(len(index.runs), dtype=bool)
    num_examples = len(store)

    def thin_out(pairs: IntArray) -> IntArray:
        """The pairs, as run * num_examples + example, without those of runs that are common phrases."""
        rows, examples = np.divmod(pairs, num_examples)
        prompts = store.prompt_hashes[examples]
        order = np.lexsort((prompts, rows))
        prompts, ordered = prompts[order], rows[order]
        is_new = _is_first(ordered) | _is_first(prompts)
        np.logical_or(is_common, np.bincount(ordered[is_new], minlength=len(is_common)) > MAX_PROMPTS, out=is_common)
        return np.asarray(pairs[~is_common[rows]])

    kept: IntArray = np.zeros(0, dtype=np.int64)
    waiting: list[IntArray] = []
    for hashes, owners in _read_runs(store, example_ids, length):
        places, rows = index.find(hashes)
        pairs = rows * num_examples + owners[places]
        waiting.append(_sort_once(pairs[~is_common[rows]]))
        # Common phrases are in most examples: drop them before they fill the memory.
        if sum(map(len, waiting)) > max(len(kept), _MAX_WAITING):
            kept, waiting = thin_out(np.concatenate([kept, *waiting])), []
    rows, examples = np.divmod(thin_out(np.concatenate([kept, *waiting])), num_examples)
    return rows, examples


def _count_by_task(
    store: TokenStore, index: _HeldOutRuns, rows: IntArray, training_ids: IntArray
) -> dict[tuple[str, str], int]:
    tasks = store.tasks
    # Each run found, once for each task whose held-out examples contain it.
    places = np.flatnonzero(_is_among(rows, len(index.runs))[index.run_rows])
    task_ids = store.task_ids[index.example_ids[places]]
    run_rows, run_tasks = np.divmod(_sort_once(index.run_rows[places] * len(tasks) + task_ids), len(tasks))
    starts = np.searchsorted(run_rows, rows)
    num_tasks = np.searchsorted(run_rows, rows, side="right") - starts
    pairs = np.repeat(training_ids, num_tasks) * len(tasks) + run_tasks[_ranges(starts, num_tasks)]
    examples, held_out_tasks = np.divmod(_sort_once(pairs), len(tasks))
    counts = np.zeros((len(tasks), len(tasks)), dtype=np.int64)
    np.add.at(counts, (store.task_ids[examples], held_out_tasks), 1)
    return {(tasks[a], tasks[b]): int(counts[a, b]) for a, b in np.argwhere(counts).tolist()}


def _read_runs(store: TokenStore, example_ids: IntArray, length: int) -> Iterator[tuple[Hashes, IntArray]]:
    """The runs of these examples as hashes, with the example of each, a million tokens at a time."""
    offsets = np.asarray(store.offsets)
    lengths = offsets[example_ids + 1] - offsets[example_ids]
    pieces = np.cumsum(lengths) // _CHUNK_TOKENS
    for ids in np.split(example_ids, np.flatnonzero(np.diff(pieces)) + 1):
        if len(ids):
            yield _hash_runs(store, offsets, ids, length)


def _hash_runs(store: TokenStore, offsets: IntArray, ids: IntArray, length: int) -> tuple[Hashes, IntArray]:
    """Polynomials of the token keys modulo 2^64: the difference of two prefix sums, shifted to power 0."""
    lengths = offsets[ids + 1] - offsets[ids]
    keys = np.asarray(store.token_keys)[store.tokens[_ranges(offsets[ids], lengths)]]
    begins = keys == CONTROL
    begins[np.cumsum(lengths) - lengths] = True
    says = keys > CONTROL
    keys, passages = keys[says], np.cumsum(begins)[says]
    firsts = np.flatnonzero(_is_first(passages))
    owners = np.repeat(ids, lengths)[says][firsts]
    num_runs = np.maximum(np.diff(np.append(firsts, len(keys))) - length + 1, 0)
    starts = _ranges(firsts, num_runs)
    sums = np.zeros(len(keys) + 1, dtype=np.uint64)
    np.cumsum(keys * _powers(_FACTOR, len(keys)), out=sums[1:])
    hashes = (sums[starts + length] - sums[starts]) * _powers(_INVERSE, len(keys))[starts]
    return hashes, np.repeat(owners, num_runs)


def _powers(factor: int, count: int) -> Hashes:
    """`factor` to the powers 0, 1, …, modulo 2^64."""
    powers = np.full(count, factor, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """`counts[i]` numbers from `starts[i]`, one range behind the other."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.arange(counts.sum()) + np.repeat(starts - before, counts))


def _is_among(numbers: IntArray, count: int) -> BoolArray:
    """For each number below `count`, whether it is one of these."""
    among = np.zeros(count, dtype=bool)
    among[numbers] = True
    return among


def _is_first(ordered: npt.NDArray[Any]) -> BoolArray:
    """True where a new value begins."""
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return first


def _sort_once(values: IntArray) -> IntArray:
    """The distinct values, rising. `np.unique` hashes them, which takes ten times as long for such numbers."""
    ordered = np.sort(values)
    return np.asarray(ordered[_is_first(ordered)])
