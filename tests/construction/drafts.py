"""Drafts for the tests of filters."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sft.construction.filters.chain import Filtering, filtering
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.registry import read_filters
from sft.construction.recipes.recipe import Seed
from sft.construction.script import Dropped, ScriptName
from sft.construction.work import Ended
from sft.draft import Draft, Provenance
from tests.construction.looks import OfEach

PROVENANCE = Provenance("few_shot", "tiny", "none")
OFF = {"form": False, "copies": False}


def draft(prompt: str, answer: str, task: str = "words", **evidence: Any) -> Draft:
    messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Draft(messages, task, PROVENANCE, evidence=evidence)


def seeds(*prompts: str, task: str = "words") -> list[tuple[str, Seed]]:
    return [(task, Seed(f"seed-{i}", prompt, "an answer", "by_hand")) for i, prompt in enumerate(prompts)]


def passed(
    drafts: Sequence[Draft],
    filters: Any,
    scratch: Path,
    known: Sequence[tuple[str, Seed]] = (),
    of_held_out: Callable[[Draft], str | None] | None = None,
) -> tuple[list[Ended], Filtering]:
    """What became of each, and the counts."""
    of_each = None if of_held_out is None else partial(OfEach, of_held_out)
    around = Surroundings(scratch, known, of_held_out=of_each)
    ended = [Ended(ScriptName("few_shot", d.task, i), d) for i, d in enumerate(drafts)]
    with filtering(read_filters(filters), around) as one_pass:
        return list(one_pass.outcomes(ended)), one_pass


def kept(drafts: Sequence[Draft], filters: Any, scratch: Path, *known: Any) -> list[Draft]:
    return [one.outcome for one in passed(drafts, filters, scratch, *known)[0] if isinstance(one.outcome, Draft)]


def reason(one: Draft, filters: Any, scratch: Path, *known: Any) -> str:
    """Why it is dropped, as `filter: reason`; empty if it is kept."""
    outcome = passed([one], filters, scratch, *known)[0][0].outcome
    return f"{outcome.filter}: {outcome.reason}" if isinstance(outcome, Dropped) else ""
