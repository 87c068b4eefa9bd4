"""Contamination: which training examples share a run of tokens with a held-out example, and with which one.

The text is compared as token keys, which ignore case and surrounding white space (`token_keys`). A run lies in one
passage: control tokens begin a new passage, so the text that a template writes around a turn is not compared with the
turn. Two texts that the tokenizer cuts into different tokens are different here.

A run that many training examples with different prompts contain is template text or a common phrase and shows nothing
(Brown et al., 2020, appendix C, ignore runs that more than ten training documents contain). A passage shorter than a
run is not compared: equal prompts are on one side anyway. The store is read in pieces, so the memory needed grows with
the held-out examples, not with the store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sft.data.mapped_arrays import Stretch, stretch_reader
from sft.data.token_keys import CONTROL
from sft.data.token_store import TokenStore
from sft.schema import BoolArray, IntArray

Hashes = npt.NDArray[np.uint64]

MAX_PROMPTS = 10
"""A run in training examples with more different prompts than this is a common phrase."""
MAX_PAIRS = 100
"""The most pairs that are listed for people to look at."""

_CHUNK_TOKENS = 1 << 20
_CHUNK_EXAMPLES = 1 << 17
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
class _Runs:
    """Distinct runs of held-out examples, sorted."""

    runs: Hashes  # (num_runs,)
    may_be_there: BoolArray  # (2**k,), by the upper k bits of a run: False where no run has them
    shift: np.uint64

    @classmethod
    def of(cls, runs: Hashes) -> "_Runs":
        # Sixteen cells for each run, so fifteen of sixteen other runs need no search.
        num_bits = int(np.clip((16 * len(runs)).bit_length(), 10, 27))
        shift = np.uint64(64 - num_bits)
        may_be_there = np.zeros(1 << num_bits, dtype=bool)
        may_be_there[runs >> shift] = True
        return cls(runs, may_be_there, shift)

    def find(self, hashes: Hashes) -> tuple[IntArray, IntArray]:
        """Which of `hashes` are among the runs, and which run each of these is."""
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
    measured = np.flatnonzero(held_out)
    runs = _Runs.of(_distinct_runs(store, measured, length))
    rows, training_ids = _find_in_training(store, np.flatnonzero(~held_out), runs, length)
    # Most runs are in no training example. Whose the others are is looked up now: all owners would take much memory.
    shared, rows = np.unique(rows, return_inverse=True)
    places = _find_places(store, measured, _Runs.of(runs.runs[shared]), length)
    firsts = places.example_ids[np.searchsorted(places.rows, rows)]
    shown, at = np.unique(training_ids, return_index=True)
    return Overlap(
        training=_is_among(training_ids, len(held_out)),
        held_out=_is_among(places.example_ids, len(held_out)),
        counts=_count_by_task(store, places, rows, training_ids),
        pairs=tuple(zip(shown[:MAX_PAIRS].tolist(), firsts[at[:MAX_PAIRS]].tolist(), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class HeldOutRuns:
    """Runs that held-out examples have and training examples have not, to be looked for in texts of neither."""

    _runs: _Runs
    _token_keys: Hashes
    _length: int

    def touch(self, texts: Sequence[Sequence[int]]) -> BoolArray:
        """Whether each of some texts, given by its token ids, has one of them: (num_texts,)."""
        able = np.array([i for i, text in enumerate(texts) if len(text) >= self._length], dtype=np.int64)
        if not len(able):
            return np.zeros(len(texts), dtype=bool)
        offsets = np.cumsum([0, *(len(texts[i]) for i in able)])
        token_ids = np.fromiter(chain.from_iterable(texts[i] for i in able), np.int64, int(offsets[-1]))
        hashes, owners = _hash_runs(
            self._token_keys, offsets, lambda start, end: token_ids[start:end], np.arange(len(able)), self._length
        )
        return _is_among(able[owners[self._runs.find(hashes)[0]]], len(texts))


def held_out_runs(store: TokenStore, held_out: BoolArray, length: int) -> HeldOutRuns:
    """The runs of `length` tokens of held-out examples that no other example has; the store is read once.

    Args:
        store: as in `overlapping_examples`.
        held_out: (num_examples,), True for the examples that are measured on.
        length: the length of a run, counting only tokens that say something.
    """
    runs = _Runs.of(_distinct_runs(store, np.flatnonzero(held_out), length))
    is_alone = np.ones(len(runs.runs), dtype=bool)
    if len(runs.runs):
        for hashes, _ in _read_runs(store, np.flatnonzero(~held_out), length):
            is_alone[runs.find(hashes)[1]] = False
    return HeldOutRuns(_Runs.of(runs.runs[is_alone]), np.asarray(store.token_keys), length)


class _Places(NamedTuple):
    """Where runs stand: pairs of a run and an example, each pair once, rising."""

    rows: IntArray  # (num_places,), into the runs
    example_ids: IntArray  # (num_places,)


def _distinct_runs(store: TokenStore, example_ids: IntArray, length: int) -> Hashes:
    """The distinct runs of these examples, rising. There are fewer runs than tokens, so they are put into one array."""
    offsets = np.asarray(store.offsets)
    runs = np.empty(int((offsets[example_ids + 1] - offsets[example_ids]).sum()), dtype=np.uint64)
    count = 0
    for hashes, _ in _read_runs(store, example_ids, length):
        runs[count : count + len(hashes)] = hashes
        count += len(hashes)
    runs = runs[:count]
    runs.sort()
    return runs[_is_first(runs)]


def _find_places(store: TokenStore, example_ids: IntArray, runs: _Runs, length: int) -> _Places:
    pairs = [np.zeros(0, dtype=np.int64)]
    for hashes, owners in _read_runs(store, example_ids, length):
        places, rows = runs.find(hashes)
        pairs.append(rows * len(store) + owners[places])
    return _Places(*np.divmod(_sort_once(np.concatenate(pairs)), len(store)))


def _find_in_training(store: TokenStore, example_ids: IntArray, index: _Runs, length: int) -> tuple[IntArray, IntArray]:
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
    store: TokenStore, held_out: _Places, rows: IntArray, training_ids: IntArray
) -> dict[tuple[str, str], int]:
    tasks = store.tasks
    # Each run found, once for each task whose held-out examples contain it.
    task_ids = store.task_ids[held_out.example_ids]
    run_rows, run_tasks = np.divmod(_sort_once(held_out.rows * len(tasks) + task_ids), len(tasks))
    starts = np.searchsorted(run_rows, rows)
    num_tasks = np.searchsorted(run_rows, rows, side="right") - starts
    pairs = np.repeat(training_ids, num_tasks) * len(tasks) + run_tasks[_ranges(starts, num_tasks)]
    examples, held_out_tasks = np.divmod(_sort_once(pairs), len(tasks))
    counts = np.zeros((len(tasks), len(tasks)), dtype=np.int64)
    np.add.at(counts, (store.task_ids[examples], held_out_tasks), 1)
    return {(tasks[a], tasks[b]): int(counts[a, b]) for a, b in np.argwhere(counts).tolist()}


def _read_runs(store: TokenStore, example_ids: IntArray, length: int) -> Iterator[tuple[Hashes, IntArray]]:
    """The runs of these examples as hashes, with the example of each, a million tokens at a time."""
    offsets, read = np.asarray(store.offsets), stretch_reader(store.tokens)
    for first in range(0, len(example_ids), _CHUNK_EXAMPLES):
        chunk = example_ids[first : first + _CHUNK_EXAMPLES]
        pieces = np.cumsum(offsets[chunk + 1] - offsets[chunk]) // _CHUNK_TOKENS
        for ids in np.split(chunk, np.flatnonzero(np.diff(pieces)) + 1):
            yield _hash_runs(store.token_keys, offsets, read, ids, length)


def _hash_runs(
    token_keys: Hashes, offsets: IntArray, read: Stretch, ids: IntArray, length: int
) -> tuple[Hashes, IntArray]:
    """Polynomials of the token keys modulo 2^64: the difference of two prefix sums, shifted to power 0."""
    lengths = offsets[ids + 1] - offsets[ids]
    # Examples that follow each other are read together.
    stretches = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    tokens = np.concatenate([read(int(offsets[s[0]]), int(offsets[s[-1] + 1])) for s in stretches])
    keys = np.asarray(token_keys)[tokens]
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
