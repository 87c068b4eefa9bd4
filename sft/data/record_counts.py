"""What became of every record: read = kept + left out for each reason, source by source.

The equation is checked before a store is published, so no record is lost without a line in `rejected.jsonl`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sft.config import DataConfig
from sft.data.duplicates import find_duplicates, find_near_duplicates
from sft.data.store_parts import StorePart, describe_records, read_all
from sft.errors import UserError
from sft.schema import IntArray, LeftOutKind, Rejected

KINDS: tuple[LeftOutKind, ...] = ("bad", "too long", "duplicate", "near duplicate")


class UnusableDataError(UserError):
    """Only other data, or another rule, would solve it."""


class TooManyBadError(UserError):
    """More of a source's records are bad than the config allows."""


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """The records of one source. `num_shortened` of the kept ones were truncated or lost some of their answers."""

    name: str
    num_read: int
    num_kept: int
    num_bad: int
    num_too_long: int
    num_duplicate: int
    num_near_duplicate: int
    num_shortened: int
    num_repaired: int
    """Kept records whose turns were out of order and were repaired."""
    num_markers: int
    """End-of-text markers removed from the ends of answers."""


@dataclass(frozen=True, slots=True)
class RecordCounts:
    """The counts of all sources; reasons and tasks over all of them."""

    sources: tuple[SourceCounts, ...]
    reasons: dict[str, int]
    too_long_by_task: dict[str, int]

    @classmethod
    def of(cls, parts: Sequence[StorePart], rejected: Sequence[Rejected], data: DataConfig) -> "RecordCounts":
        """Count the records; the number of kept ones is counted from the parts, not computed as a difference."""
        left_out = Counter((r.source, r.kind) for r in rejected)
        sources = []
        for source in data.sources:
            own = [part for part in parts if part.counts.source == source.name]
            removed = left_out[source.name, "duplicate"] + left_out[source.name, "near duplicate"]
            counts = SourceCounts(
                source.name,
                num_read=sum(part.counts.num_read for part in own),
                num_kept=sum(len(part.num_rows) for part in own) - removed,
                num_bad=left_out[source.name, "bad"],
                num_too_long=left_out[source.name, "too long"],
                num_duplicate=left_out[source.name, "duplicate"],
                num_near_duplicate=left_out[source.name, "near duplicate"],
                num_shortened=sum(part.counts.num_shortened for part in own),
                num_repaired=sum(part.counts.num_repaired for part in own),
                num_markers=sum(part.counts.num_markers for part in own),
            )
            assert counts.num_read == counts.num_kept + sum(left_out[source.name, kind] for kind in KINDS)
            sources.append(counts)
        reasons = Counter(_reason(r) for r in rejected if r.kind == "bad")
        too_long = Counter(r.task or "" for r in rejected if r.kind == "too long")
        return cls(tuple(sources), dict(reasons.most_common()), dict(sorted(too_long.items())))

    def check_any_left(self, data: DataConfig) -> None:
        """Refuse data if nothing of it is left.

        Raises:
            UnusableDataError: no record is kept.
        """
        if not self.total("num_kept"):
            raise UnusableDataError(
                f"No example is left of {self.total('num_read')} records: {self.total('num_too_long')} are longer than "
                f"data.max_len_tokens ({data.max_len_tokens}), {self.total('num_bad')} cannot be used. "
                f"{'Make max_len_tokens larger.' if self.total('num_too_long') else 'Correct the data.'}"
                f"{_list_reasons(self.reasons)}"
            )

    def total(self, field: str) -> int:
        """The sum of a count over all sources."""
        return sum(int(getattr(source, field)) for source in self.sources)

    def as_manifest(self) -> dict[str, Any]:
        """As it is kept in the store's manifest."""
        names = [name for name in SourceCounts.__dataclass_fields__ if name != "name"]
        return {
            **{name: self.total(name) for name in names},
            "by_source": [asdict(source) for source in self.sources],
            "reasons": self.reasons,
            "too_long_by_task": self.too_long_by_task,
        }


def check_bad_share(manifest: Mapping[str, Any], data: DataConfig) -> None:
    """Compare the counts in a store's manifest with the limit.

    Raises:
        TooManyBadError: more of a source's records are bad than `data.max_bad_share` allows.
    """
    rows = manifest["by_source"]
    over = [row for row in rows if row["num_read"] and row["num_bad"] / row["num_read"] > data.max_bad_share]
    if over:
        shares = ", ".join(
            f"{row['name']}: {row['num_bad']:,} of {row['num_read']:,} ({row['num_bad'] / row['num_read']:.1%})"
            for row in over
        )
        raise TooManyBadError(
            f"More records cannot be used than data.max_bad_share allows ({data.max_bad_share:.1%}). {shares}. "
            f"Correct the data, or raise the limit.{_list_reasons(manifest['reasons'])}"
        )


def _list_reasons(reasons: Mapping[str, int]) -> str:
    lines = [f"\n  {count:,} × {reason}" for reason, count in reasons.items()]
    return "".join(lines[:8]) + (f"\n  … and {len(lines) - 8} other reasons" if len(lines) > 8 else "")


def find_left_out(parts: Sequence[StorePart], data: DataConfig) -> tuple[IntArray, list[Rejected]]:
    """For each record of the parts, the kept record that it equals (itself if it is kept); and the rejected records."""
    itself = np.arange(sum(len(part.num_rows) for part in parts))
    if data.duplicates == "keep" or not len(itself):
        return itself, []
    firsts = find_duplicates(read_all(parts, "content_hashes"))
    found = _as_rejected(parts, np.flatnonzero(firsts != itself), firsts, "duplicate", data)
    if data.duplicates == "remove_near":
        signatures = read_all([part for part in parts if len(part.num_rows)], "signatures")
        alike = find_near_duplicates(signatures, firsts == itself, data.near_duplicate_similarity)
        near = np.flatnonzero((firsts == itself) & (alike != itself))
        found += _as_rejected(parts, near, alike, "near duplicate", data)
        firsts = alike[firsts]
    return firsts, found


def _as_rejected(
    parts: Sequence[StorePart], records: IntArray, firsts: IntArray, kind: LeftOutKind, data: DataConfig
) -> list[Rejected]:
    own, others = describe_records(parts, records), describe_records(parts, firsts[records])
    return [
        Rejected(data.sources[source].name, index, place, f"{kind} of {other[0]}", kind, task)
        for (place, task, source, index), other in zip(own, others, strict=True)
    ]


def _reason(rejected: Rejected) -> str:
    """The reason without the parts that differ from record to record, so that equal reasons can be counted."""
    first_line = rejected.reason.partition("\n")[0]
    return re.sub(r"(?<![\w+-])\d+(?:[,.]\d+)*\b", "N", first_line)
