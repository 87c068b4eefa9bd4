"""What a run trains on that was made, in words: by which recipe and teacher, and who approved it by which rule.

manifest.json of the run: made ──made_rows──▶ MadeRow of each source ──▶ console, report, card of a model
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sft.printable import counted, short_name

_MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class MadeRow:
    """The made records of a source."""

    source: str
    num: int
    """Those that are trained, before duplicates are left out."""
    num_unreviewed: int
    """Those of them that nobody has approved."""
    made_by: str
    approved_by: str
    left_out: str
    """Those of the source that are not trained, by what people say of them; empty where it is not known."""
    is_unfinished: bool = False
    """Whether the decisions end in a part of a line."""

    @property
    def warning(self) -> str:
        """What has to be said aloud; empty if all is approved."""
        if not self.num_unreviewed:
            return ""
        of = f"{self.num_unreviewed:,} of {counted(self.num, 'made record')} of the source {self.source}"
        return f"UNREVIEWED: nobody has approved {of}, and they are trained on (data.unreviewed)"

    def __str__(self) -> str:
        """A line for the terminal."""
        parts = [f"made by {self.made_by}"] if self.made_by else []
        parts += [f"approved by {self.approved_by}"] if self.approved_by else []
        parts += [f"not trained: {self.left_out}"] if self.left_out else []
        parts += ["the last line of the decisions is unfinished and does not count"] if self.is_unfinished else []
        return f"made data of {self.source}: {counted(self.num, 'record')}; {'; '.join(parts)}"


def made_of_models(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the models of a run are trained on that was made: what they begin with, then the run's own sources."""
    return {**manifest.get("made_before", {}), **manifest.get("made", {})}


def made_rows(made: Mapping[str, Any]) -> list[MadeRow]:
    """A row for each source, in the order of the config; see `sft.data.made_records.made_of_run`."""
    return [
        MadeRow(
            name,
            about.get("num", 0),
            about.get("num_unreviewed", 0),
            _made_by(about),
            _approved_by(about),
            ", ".join(f"{num:,} {state}" for state, num in about.get("left_out", {}).items()),
            about.get("is_unfinished", False),
        )
        for name, about in made.items()
    ]


def _made_by(about: Mapping[str, Any]) -> str:
    recipes, teachers = _listed(about.get("recipes", {})), _listed(about.get("teachers", {}))
    return f"{recipes} with {teachers}" if recipes and teachers else recipes or teachers


def _approved_by(about: Mapping[str, Any]) -> str:
    reviewers = _listed(about.get("reviewers", {}))
    if not reviewers:
        return ""
    first, last = about.get("days", ("", ""))
    when = f", {first}" if first == last else f", {first} to {last}"
    rules = about.get("rules", {})
    each = f"one by one: {rules['each']:,}" if "each" in rules else ""
    sample = f"by a sample: {rules['sample']:,}{_of_sample(about)}" if "sample" in rules else ""
    return f"{reviewers} ({'; '.join(filter(None, (each, sample)))}{when if first else ''})"


def _of_sample(about: Mapping[str, Any]) -> str:
    sample = about.get("sample")
    if not sample:
        return ""
    bound = f"upper end {sample['upper']:.1%}, below {sample['bound']:.1%}"
    return f" ({sample['num_wrong']:,} wrong of {sample['num_reviewed']:,} reviewed; {bound})"


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{short_name(name)} {num:,}" for name, num in [*counts.items()][:_MOST_SHOWN]]
    return ", ".join([*shown, *(["…"] if len(counts) > _MOST_SHOWN else [])])
