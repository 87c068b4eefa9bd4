"""What became of every record: read = kept + left out for each reason, source by source.

The equation is checked before a store is published, so no record is lost without a line in `rejected.jsonl`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.config import DataConfig
from sft.data.left_out import LeftOut
from sft.data.made_records import Fact, as_manifest, joined
from sft.data.store_parts import StorePart
from sft.errors import UserError
from sft.schema import LeftOutKind

KINDS: tuple[LeftOutKind, ...] = ("bad", "too long", "duplicate", "near duplicate")
_COUNTED = ("read", "shortened", "repaired", "markers")


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
    notes: tuple[str, ...]
    made: dict[str, dict[str, Any]]
    """Source → what its records with an approval are (see `sft.data.made_records`), where it has some."""

    @classmethod
    def of(cls, parts: Sequence[StorePart], left_out: LeftOut, data: DataConfig) -> "RecordCounts":
        """Count the records; the number of kept ones is counted from the parts, not computed as a difference."""
        found = {source.name: Counter[str]() for source in data.sources}
        made = {source.name: Counter[Fact]() for source in data.sources}
        reasons, too_long, notes = Counter[str](), Counter[str](), dict[str, None]()
        for part, (duplicates, near) in zip(parts, left_out.count_by_part(parts), strict=True):
            counts, of_source = part.read_counts(), found[part.source]
            of_source.update({name: getattr(counts, f"num_{name}") for name in _COUNTED})
            of_source.update({"kept": part.num_records - duplicates - near})
            of_source.update({"duplicate": duplicates, "near duplicate": near})
            of_source.update(rejected.kind for rejected in counts.rejected)
            reasons.update(_reason(r.reason) for r in counts.rejected if r.kind == "bad")
            too_long.update(r.task or "" for r in counts.rejected if r.kind == "too long")
            notes |= dict.fromkeys(counts.notes)
            made[part.source].update(joined(counts.made))
        sources = []
        for name, of_source in found.items():
            assert of_source["read"] == of_source["kept"] + sum(of_source[kind] for kind in KINDS)
            named = {f"num_{kind.replace(' ', '_')}": of_source[kind] for kind in ("kept", *KINDS, *_COUNTED)}
            sources.append(SourceCounts(name, **named))
        of_made = {name: about for name, facts in made.items() if (about := as_manifest(facts))}
        return cls(tuple(sources), dict(reasons.most_common()), dict(sorted(too_long.items())), tuple(notes), of_made)

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
            "notes": list(self.notes),
            **{name: self.total(name) for name in names},
            "by_source": [asdict(source) for source in self.sources],
            "reasons": self.reasons,
            "too_long_by_task": self.too_long_by_task,
            "made": self.made,
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


def _reason(text: str) -> str:
    """The reason without the parts that differ from record to record, so that equal reasons can be counted."""
    first_line = text.partition("\n")[0]
    return re.sub(r"(?<![\w+-])\d+(?:[,.]\d+)*\b", "N", first_line)
