"""Proves the invariants of the mask over every row of a store, and counts what is learned.

    the store alone     sizes, ids, counts, and where learned runs begin and end; over arrays, a chunk of rows at a time
    against its sources `sft.inspection.source_check`: ids and answers, row by row, from the conversations

Nothing is sampled. Rows that came as token ids have no template behind them: only what holds for any mask is checked,
not the stop token or the answers.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from sft.data.preparation import REJECTED
from sft.data.rendering.inference import Inference
from sft.data.rendering.renderer import Rendering
from sft.data.token_store import TokenStore
from sft.inspection.check_result import CheckResult, Findings, Invariant
from sft.inspection.rendered_rows import RenderedRow
from sft.inspection.source_check import SourceCheck, inference_of
from sft.inspection.token_view import find_special, known_special
from sft.json_lines import whole_lines
from sft.schema import BoolArray, IntArray, LeftOutKind

_CHUNK_ROWS = 512
_ROW_ARRAYS = ("task_ids", "source_ids", "record_ids", "prompt_hashes", "file_ids", "line_numbers", "instances")


class _Chunk(NamedTuple):
    """Consecutive rows, with the ends of their learned runs as places in `ids`."""

    rows: IntArray  # (num_rows,)
    bounds: IntArray  # (num_rows + 1,)
    ids: IntArray  # (num_tokens,)
    loss_mask: BoolArray  # (num_tokens,)
    is_special: BoolArray  # (num_tokens,)
    is_last: BoolArray  # (num_tokens,): True at the last token of a learned run

    def sums(self, values: BoolArray) -> IntArray:
        """The number of True `values` in each row."""
        return np.diff(np.concatenate([[0], np.cumsum(values)])[self.bounds])

    def example_at(self, place: int) -> tuple[IntArray, BoolArray]:
        """Ids and mask of one row."""
        part = slice(int(self.bounds[place]), int(self.bounds[place + 1]))
        return self.ids[part], self.loss_mask[part]


def check_store(
    store: TokenStore,
    tokenizer: PreTrainedTokenizerBase,
    max_len_tokens: int,
    renderings: Iterable[RenderedRow],
    report: Callable[[int], None] = lambda num_rows: None,
    inference: Inference | None = None,
) -> CheckResult:
    """Check every row.

    Args:
        store: the store to check.
        tokenizer: the one of the store, with its chat template set.
        max_len_tokens: the longest row allowed.
        renderings: for each row of the store, in order, the rendering of its record when it is read again, as
            `sft.inspection.rendered_rows` makes them.
        report: called with the number of rows checked.
        inference: what is known about the model besides its tokenizer; by default only what the tokenizer says.
    """
    findings = Findings()
    _check_account(store, findings)
    num_answers = num_stops = 0
    if _check_layout(store, findings):
        _check_row_arrays(store, max_len_tokens, findings)
        is_special = find_special(tokenizer)
        source_check = SourceCheck(store, tokenizer, findings, inference or inference_of(tokenizer))
        remaining = iter(renderings)
        for start in range(0, len(store), _CHUNK_ROWS):
            chunk = _read_chunk(store, start, min(start + _CHUNK_ROWS, len(store)), is_special)
            given = list(islice(remaining, len(chunk.rows)))
            _check_masks(store, chunk, given, len(is_special), findings)
            source_check.check(chunk.rows.tolist(), [chunk.example_at(i) for i in range(len(chunk.rows))], given)
            num_answers += int(chunk.is_last.sum())
            num_stops += int((chunk.is_last & chunk.is_special).sum())
            report(int(chunk.rows[-1]) + 1)
        if next(remaining, remaining) is not remaining:
            findings.add(Invariant.RECORD, None, f"there are more records than the {len(store):,} rows")
    num_supervised = int(np.count_nonzero(store.loss_mask))
    return CheckResult(len(store), len(store.tokens), num_supervised, num_answers, num_stops, findings.results())


def _check_account(store: TokenStore, findings: Findings) -> None:
    """Compare the counts with the list of records that are left out, and with the records that rows belong to."""
    lines = [json.loads(line) for line in whole_lines(store.path / REJECTED)]
    listed = Counter((line["source"], line["kind"]) for line in lines)
    for source_id, counts in enumerate(store.manifest["by_source"]):
        kinds = {kind: counts["num_" + kind.replace(" ", "_")] for kind in get_args(LeftOutKind)}
        wrong = [
            f"{kind}: {count:,} counted, {listed[counts['name'], kind]:,} listed in {REJECTED}"
            for kind, count in kinds.items()
            if count != listed[counts["name"], kind]
        ]
        num_kept = _num_records(store, source_id)
        if counts["num_kept"] != num_kept:
            wrong.append(f"kept: {counts['num_kept']:,} counted, {num_kept:,} records have rows")
        if counts["num_read"] != num_kept + sum(kinds.values()):
            wrong.append(f"{counts['num_read']:,} read, {num_kept + sum(kinds.values()):,} kept or left out")
        text = f"source {counts['name']}: {'; '.join(wrong)}" if wrong else None
        findings.add(Invariant.ACCOUNT, None, text, num_checked=counts["num_read"])


def _num_records(store: TokenStore, source_id: int) -> int:
    """The number of a source's records that have rows; the rows of one record follow each other."""
    own = store.source_ids == source_id
    names = np.stack([store.record_ids[own], store.instances[own]])
    return int(own.any()) + int((names[:, 1:] != names[:, :-1]).any(axis=0).sum())


def _check_layout(store: TokenStore, findings: Findings) -> bool:
    """Whether rows can be read at all."""
    offsets, num_tokens = store.offsets.astype(np.int64), len(store.tokens)
    whole = {
        "loss_mask": (len(store.loss_mask), num_tokens),
        "offsets": (len(offsets), len(store) + 1),
        **{name: (len(getattr(store, name)), len(store)) for name in _ROW_ARRAYS},
    }
    wrong = [f"{name} has {length:,} items, not {due:,}" for name, (length, due) in whole.items() if length != due]
    if not wrong and (offsets[0] != 0 or offsets[-1] != num_tokens):
        wrong = [f"the offsets go from {offsets[0]:,} to {offsets[-1]:,}, the tokens from 0 to {num_tokens:,}"]
    for text in wrong:
        findings.add(Invariant.LAYOUT, None, text)
    if not wrong:
        lengths = np.diff(offsets)
        rows = np.arange(len(store))
        findings.add_rows(Invariant.LAYOUT, rows, lengths < 1, lambda i: f"its length is {lengths[i]}")
        return not (lengths < 1).any()
    return False


def _check_row_arrays(store: TokenStore, max_len_tokens: int, findings: Findings) -> None:
    rows, lengths = np.arange(len(store)), store.lengths
    findings.add_rows(
        Invariant.LENGTH,
        rows,
        lengths > max_len_tokens,
        lambda i: f"{lengths[i]:,} tokens; allowed: {max_len_tokens:,}",
    )
    known = _within(store.task_ids, len(store.tasks)) & _within(store.source_ids, len(store.manifest["sources"]))
    findings.add_rows(
        Invariant.NAMES, rows, ~known, lambda i: f"task number {store.task_ids[i]}, source number {store.source_ids[i]}"
    )


def _within(ids: IntArray, count: int) -> BoolArray:
    return np.asarray((ids >= 0) & (ids < count))


def _read_chunk(store: TokenStore, start: int, end: int, is_special: BoolArray) -> _Chunk:
    offsets = store.offsets[start : end + 1].astype(np.int64)
    part = slice(int(offsets[0]), int(offsets[-1]))
    ids, mask = np.array(store.tokens[part], dtype=np.int64), np.array(store.loss_mask[part])
    bounds = offsets - offsets[0]
    following = np.append(mask[1:], False)
    following[bounds[1:] - 1] = False  # a token of the next row does not count
    return _Chunk(np.arange(start, end), bounds, ids, mask, known_special(ids, is_special), mask & ~following)


def _check_masks(
    store: TokenStore, chunk: _Chunk, given: Sequence[RenderedRow], num_ids: int, findings: Findings
) -> None:
    rows, learned = chunk.rows, chunk.sums(chunk.loss_mask)
    outside = chunk.sums((chunk.ids < 0) | (chunk.ids >= num_ids))
    counted = np.asarray(store.num_supervised[rows])
    findings.add_rows(
        Invariant.VOCABULARY,
        rows,
        outside > 0,
        lambda i: f"{outside[i]} ids are not among the {num_ids:,} of the tokenizer",
    )
    first_learned = chunk.loss_mask[chunk.bounds[:-1]]
    findings.add_rows(Invariant.FIRST_TOKEN, rows, first_learned, lambda i: "its first token is learned")
    findings.add_rows(Invariant.LEARNS, rows, learned == 0, lambda i: "no token is learned")
    findings.add_rows(
        Invariant.COUNT, rows, learned != counted, lambda i: f"{learned[i]} tokens are learned, {counted[i]} are stored"
    )
    # A row without a rendering is wrong anyway, and the check against the sources reports it.
    whole = [*given, *[None] * (len(rows) - len(given))]
    rendered = np.array([isinstance(item, Rendering) for item in whole], dtype=bool)
    endless = chunk.sums(chunk.is_last & ~chunk.is_special)
    findings.add_rows(
        Invariant.STOP,
        rows[rendered],
        endless[rendered] > 0,
        lambda i: f"{endless[rendered][i]} learned runs end in a token that does not end a turn",
    )
