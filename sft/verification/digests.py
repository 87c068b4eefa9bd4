"""Computes again, from plan and token store, what steps should have been fed: many packs at a time, in many processes.

    packs of consecutive steps ──gather──▶ one array with the bytes that `sft.ledger.pack_digest` hashes ──▶ digests

Invariant: the digest of a step is `digest_of_packs` of its packs, bit for bit. Packs are read a block at a time, and
the maps are reopened regularly, so that only a few blocks of the files stay in memory.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sft.data.mapped_arrays import Stretch, stretch_reader
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.schema import IntArray

_MAX_BLOCK_PACKS = 16_384
_MAX_BLOCK_TOKENS = 1 << 21
_BLOCKS_A_TASK = 16
_FEW_PACKS = 50_000
"""This many are done before other processes would have started."""
_LONG = 100
"""Stretches of this average length or more are copied faster one by one."""
_MASK = np.uint64(2**63 - 1)


class StepDigest(NamedTuple):
    """For one step: the digest that its ledger entry must have, and the tokens in its loss."""

    digest: int
    num_supervised_tokens: int


def digest_steps(plan: Path, store: Path, steps: Sequence[range]) -> Iterator[StepDigest]:
    """The digest of each step, in order.

    Args:
        plan: the published pack plan.
        store: the token store that it was made from.
        steps: the packs of each step, in the order of the plan; none is empty.
    """
    blocks = _blocks(stretch_reader(PackPlan.open(plan).num_tokens), steps)
    tasks = iter(lambda: list(islice(blocks, _BLOCKS_A_TASK)), [])
    num_processes = min(len(os.sched_getaffinity(0)), 32)
    if num_processes == 1 or sum(map(len, steps)) <= _FEW_PACKS:
        for task in tasks:
            yield from _digest_task(plan, store, task)
        return
    with ExitStack() as held:
        # Forks of this process could inherit a lock that one of its threads holds.
        pool = held.enter_context(ProcessPoolExecutor(num_processes, get_context("forkserver")))
        held.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: list[Future[list[StepDigest]]] = []
        for task in tasks:
            waiting.append(pool.submit(_digest_task, plan, store, task))
            if len(waiting) > 2 * num_processes:
                yield from waiting.pop(0).result()
        for future in waiting:
            yield from future.result()


def digest_packs(plan: PackPlan, store: TokenStore, packs: range) -> tuple[npt.NDArray[np.uint64], IntArray]:
    """The digests of consecutive packs, and the tokens in the loss of each: (num_packs,), (num_packs,)."""
    first_segment, last_segment = int(plan.starts[packs.start]), int(plan.starts[packs.stop])
    example_ids = np.array(plan.example_ids[first_segment:last_segment], np.int64)  # (num_segments,)
    segments = np.diff(plan.starts[packs.start : packs.stop + 1])  # of each pack
    begins = np.array(store.offsets[example_ids], np.int64)
    lengths = np.array(store.offsets[example_ids + 1], np.int64) - begins
    pack_starts = np.concatenate([[0], np.cumsum(segments)[:-1]])
    num_tokens = np.add.reduceat(lengths, pack_starts)
    tokens, mask = (_gather(array, begins, lengths) for array in (store.tokens, store.loss_mask))

    mask_bytes = -(-num_tokens // 8)
    mask_words = -(-mask_bytes // 8)
    num_words = 7 + 2 * segments + num_tokens + mask_words
    at = np.cumsum(num_words) - num_words  # where each pack begins
    words = np.zeros(int(num_words.sum()), "<i8")
    # Each part follows its length, as `pack_digest` hashes them: id, examples, boundaries, tokens, mask.
    words[at] = 1
    words[at + 1] = np.arange(packs.start, packs.stop)
    words[at + 2] = segments
    words[_spread(at + 3, segments)] = example_ids
    at += 3 + segments
    words[at] = segments + 1  # and the first boundary, 0
    ends = np.cumsum(lengths)
    words[_spread(at + 2, segments)] = ends - np.repeat(ends[pack_starts] - lengths[pack_starts], segments)
    at += 2 + segments
    words[at] = num_tokens
    _scatter(words, at + 1, num_tokens, tokens)
    at += 1 + num_tokens
    words[at] = mask_bytes
    bits = np.zeros(int(mask_words.sum()) * 64, bool)
    _scatter(bits, 64 * (np.cumsum(mask_words) - mask_words), num_tokens, mask)
    words[_spread(at + 1, mask_words)] = np.packbits(bits).view("<i8")

    content = words.data.cast("B")
    last = 8 * (at + 1) + mask_bytes
    first = 8 * (np.cumsum(num_words) - num_words)
    # A copy is twice as fast as a new hash, which matters if packs are short.
    blank, hashed = hashlib.blake2b(digest_size=8), bytearray()
    for start, end in zip(first.tolist(), last.tolist(), strict=True):
        of_pack = blank.copy()
        of_pack.update(content[start:end])
        hashed += of_pack.digest()
    supervised = np.add.reduceat(mask.astype(np.int64), np.cumsum(num_tokens) - num_tokens)
    return np.frombuffer(hashed, "<u8") & _MASK, supervised


def _digest_task(plan: Path, store: Path, blocks: Sequence[Sequence[range]]) -> list[StepDigest]:
    opened, tokens = PackPlan.open(plan), TokenStore.open(store)
    found = []
    for steps in blocks:
        digests, supervised = digest_packs(opened, tokens, range(steps[0].start, steps[-1].stop))
        starts = np.array([step.start - steps[0].start for step in steps])
        # uint64 wraps around modulo 2**64, a multiple of 2**63.
        sums = np.add.reduceat(digests, starts) & _MASK
        found += [
            StepDigest(*pair) for pair in zip(sums.tolist(), np.add.reduceat(supervised, starts).tolist(), strict=True)
        ]
    return found


def _blocks(num_tokens: Stretch, steps: Sequence[range]) -> Iterator[list[range]]:
    """Runs of consecutive steps, within the limits of packs and tokens for a block, or of a single step."""
    block: list[range] = []
    tokens = 0
    for step in steps:
        of_step = int(num_tokens(step.start, step.stop).sum())
        is_next = block and step.start == block[-1].stop
        is_full = block and (step.stop - block[0].start > _MAX_BLOCK_PACKS or tokens + of_step > _MAX_BLOCK_TOKENS)
        if block and (is_full or not is_next):
            yield block
            block, tokens = [], 0
        block.append(step)
        tokens += of_step
    if block:
        yield block


def _gather(array: npt.NDArray[Any], starts: IntArray, lengths: IntArray) -> npt.NDArray[Any]:
    """The stretches of the array, concatenated."""
    if lengths.mean() < _LONG:
        found: npt.NDArray[Any] = array[_spread(starts, lengths)]
        return found
    ends = (starts + lengths).tolist()
    return np.concatenate([array[start:end] for start, end in zip(starts.tolist(), ends, strict=True)])


def _scatter(array: npt.NDArray[Any], starts: IntArray, lengths: IntArray, values: npt.NDArray[Any]) -> None:
    """Put concatenated values into the stretches of the array."""
    if lengths.mean() < _LONG:
        array[_spread(starts, lengths)] = values
        return
    ends = np.cumsum(lengths).tolist()
    for start, length, end in zip(starts.tolist(), lengths.tolist(), ends, strict=True):
        array[start : start + length] = values[end - length : end]


def _spread(starts: IntArray, lengths: IntArray) -> IntArray:
    """`starts[i]`, `starts[i] + 1`, … for each i, `lengths[i]` of them: [5 9], [2 3] → 5 6 9 10 11."""
    before = np.cumsum(lengths) - lengths
    spread: IntArray = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
    return spread
