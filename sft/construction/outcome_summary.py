"""What became of all drafts, read from the folder in one pass: counts, cost, and some drafts of each kind by seed.

    manifest.json, records.jsonl, dropped.jsonl ──read_summary──▶ Summary ─▶ construct.html, DATA_CARD.md

Its memory does not grow with the number of records. The files are read by their lines, so their counts are those of the
files, whatever became of these since they were written.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sft.approval.own_files import KIND
from sft.atomic_files import DamagedError, read_json
from sft.construction.counts import MOST_REASONS, OTHER
from sft.construction.drawn import Drawn
from sft.construction.filters.compared_words import ComparedWords
from sft.construction.folder import ConstructionFolder
from sft.construction.shown_draft import ShownDraft
from sft.draft import Draft, Provenance, read_draft
from sft.errors import UserError

MOST_DRAWN = 2000
_MOST_VERSIONS = 20
"""Of prompts, parameters and teachers of a recipe."""
_EXAMPLES = 3
_ANEW = "The same `sft construct` writes it anew, and asks nobody."


class Why(NamedTuple):
    """Why a draft is dropped."""

    filter: str
    reason: str


class Version(NamedTuple):
    """What a recipe's drafts were asked for by."""

    teacher: str
    prompts: str
    """The fingerprint."""
    parameters: str


OTHERS = Version("others", "", "")
"""In place of those beyond the most."""


@dataclass(slots=True)
class VersionFacts:
    """What came of it."""

    num_made: int = 0
    num_kept: int = 0
    first: str = ""
    last: str = ""
    """The days of the first and the last reply."""


@dataclass(slots=True)
class RecipeFacts:
    """How a recipe made its drafts, kept and dropped ones."""

    num_requests: int = 0
    num_tokens: int = 0
    cost: float = 0.0
    has_cost: bool = False
    versions: dict[Version, VersionFacts] = field(default_factory=dict)

    @property
    def num_made(self) -> int:
        """Of all versions."""
        return sum(facts.num_made for facts in self.versions.values())

    @property
    def num_kept(self) -> int:
        """Of all versions."""
        return sum(facts.num_kept for facts in self.versions.values())

    def add(self, of: Provenance, *, is_kept: bool) -> None:
        """Count a draft."""
        self.num_requests += len(of.requests)
        self.num_tokens += of.num_tokens
        if of.cost is not None:
            self.cost, self.has_cost = self.cost + of.cost, True
        asked = ", ".join(f"{name} {value}" for name, value in of.parameters.items())
        version = Version(of.teacher, of.prompts, asked)
        if version not in self.versions and len(self.versions) >= _MOST_VERSIONS:
            version = OTHERS
        facts = self.versions.setdefault(version, VersionFacts())
        facts.num_made += 1
        facts.num_kept += is_kept
        if of.made:
            facts.first = min(facts.first or of.made, of.made)
            facts.last = max(facts.last, of.made)


@dataclass(slots=True)
class Summary:
    """All that page and card show of the drafts."""

    manifest: Mapping[str, Any]
    filters: list[str]
    """Those that may have dropped something, in the order in which a draft goes through them."""
    kept: Drawn[ShownDraft]
    parts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """Recipe and task → how many drafts each filter dropped."""
    num_kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By recipe and task."""
    reasons: Counter[Why] = field(default_factory=Counter)
    examples: dict[Why, Drawn[ShownDraft]] = field(default_factory=dict)
    recipes: dict[str, RecipeFacts] = field(default_factory=dict)

    @property
    def dropped(self) -> Counter[str]:
        """How many drafts each filter dropped."""
        return sum(self.parts.values(), Counter[str]())


def read_summary(folder: ConstructionFolder, words: ComparedWords | None = None) -> Summary:
    """Read what `sft construct` has written.

    Args:
        folder: where it is.
        words: by which drafts are compared. Default: all of their prompts.

    Raises:
        UserError: the folder has no manifest of a construction, or a file cannot be read or is damaged.
    """
    words = words or ComparedWords(())
    if (manifest := _manifest(folder)) is None:
        raise UserError(f"{folder.path} holds no records of a construction. Run `sft construct` with its config first.")
    seed = int(manifest.get("seed", 0))
    summary = Summary(manifest, [*manifest.get("filters", {})], Drawn(MOST_DRAWN, seed))
    for name, draft, _ in _lines(folder.records):
        summary.kept.offer(name, partial(ShownDraft.of, draft, words))
        summary.num_kept[draft.provenance.recipe, draft.task] += 1
        _recipe(summary, draft).add(draft.provenance, is_kept=True)
    for name, draft, dropped in _lines(folder.dropped):
        why = _add_dropped(summary, draft, Why(str(dropped.get("filter", "")), str(dropped.get("reason", ""))))
        examples = summary.examples.setdefault(why, Drawn(_EXAMPLES, seed))
        examples.offer(name, partial(ShownDraft.of, draft, words))
    return summary


def _add_dropped(summary: Summary, draft: Draft, why: Why) -> Why:
    """Count it; returns the reason that it counts by."""
    if why.filter not in summary.filters:
        summary.filters.insert(0, why.filter)  # a recipe's own rule, which comes before the filters
    summary.parts.setdefault((draft.provenance.recipe, draft.task), Counter())[why.filter] += 1
    _recipe(summary, draft).add(draft.provenance, is_kept=False)
    if why not in summary.reasons and len(summary.reasons) >= MOST_REASONS:
        why = Why(why.filter, OTHER)
    summary.reasons[why] += 1
    return why


def _recipe(summary: Summary, draft: Draft) -> RecipeFacts:
    return summary.recipes.setdefault(draft.provenance.recipe, RecipeFacts())


def is_constructed(folder: ConstructionFolder) -> bool:
    """Whether a construction has written its records there."""
    return _manifest(folder) is not None


def _manifest(folder: ConstructionFolder) -> Mapping[str, Any] | None:
    try:
        content = read_json(folder.manifest)
    except (OSError, DamagedError):
        return None
    is_ours = isinstance(content, Mapping) and content.get("kind") == KIND and "num_wanted" in content
    return content if is_ours else None


def _lines(path: Path) -> Iterator[tuple[str, Draft, Mapping[str, Any]]]:
    """Each draft with the id that is written, and why it is dropped."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _read_line(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}. {_ANEW}") from error


def _read_line(line: bytes, place: str) -> tuple[str, Draft, Mapping[str, Any]]:
    try:
        content = json.loads(line)
        draft = read_draft(content)
        if not all(isinstance(message, Mapping) for message in draft.messages):
            raise TypeError("a message is no object")
        return str(content["id"]), draft, content.get("dropped", {})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{place} is damaged ({error!r}). {_ANEW}") from None
