"""The rows of the tables of a construction's page: the way from wanted to kept, the yield, and the cost."""

from collections import Counter
from typing import Any, NamedTuple

from sft.construction.outcome_summary import Summary

MOST_ROWS = 200
_REST = "a judge, and what made no draft"


class FunnelRow(NamedTuple):
    """A step on the way from what was wanted to what is kept."""

    label: str
    num: int
    share: float
    """Of what was wanted."""
    left: float
    """Where its bar begins: what is left after it lies before."""
    kind: str
    is_loss: bool


def funnel_rows(summary: Summary) -> list[FunnelRow]:
    """Wanted, what was lost at each step, kept."""
    manifest, dropped = summary.manifest, summary.dropped
    wanted = manifest["num_wanted"]
    left = wanted
    rows = [FunnelRow("wanted", wanted, 1.0 if wanted else 0.0, 0.0, "seed", False)]
    losses = [("not made", manifest["num_not_made"], "not-made")]
    losses += [(f"dropped by {name}", dropped[name], "dropped") for name in summary.filters]
    for label, num, kind in losses:
        left -= num
        rows.append(FunnelRow(label, num, _share(num, wanted), _share(left, wanted), kind, True))
    kept = summary.kept.num_offered
    return [*rows, FunnelRow("kept", kept, _share(kept, wanted), 0.0, "kept", False)]


class PartRow(NamedTuple):
    """What a recipe has made of a task."""

    recipe: str
    task: str
    wanted: int
    not_made: int
    dropped: Counter[str]
    """By filter."""
    kept: int
    share: float
    """Kept, of wanted."""
    bar: list[tuple[str, float, float]]
    """Kind, where it begins, and how wide it is."""


def part_rows(summary: Summary) -> tuple[list[PartRow], int]:
    """The largest parts, in the order of the manifest, and the number of all."""
    parts = summary.manifest["parts"]
    largest = {id(part) for part in sorted(parts, key=lambda part: -part["num_wanted"])[:MOST_ROWS]}
    return [_part_row(summary, part) for part in parts if id(part) in largest], len(parts)


def _part_row(summary: Summary, part: dict[str, Any]) -> PartRow:
    key = part["recipe"], part["task"]
    dropped, kept = summary.parts.get(key, Counter()), summary.num_kept[key]
    wanted, not_made = part["num_wanted"], part["num_not_made"]
    shares = [_share(num, wanted) for num in (kept, dropped.total(), not_made)]
    starts = [0.0, shares[0], shares[0] + shares[1]]
    bar = [*zip(("kept", "dropped", "not-made"), starts, shares, strict=True)]
    return PartRow(*key, wanted, not_made, dropped, kept, shares[0], [one for one in bar if one[2]])


class CostRow(NamedTuple):
    """What the drafts of a recipe took."""

    name: str
    made: int
    kept: int
    requests: int
    tokens: int
    cost: float | None
    tokens_each: float
    """For each kept record; 0 where none is kept."""
    cost_each: float | None


def cost_rows(summary: Summary) -> list[CostRow]:
    """A row for each recipe, one for other requests, and the sum."""
    manifest = summary.manifest
    rows = [
        _cost_row(name, of.num_made, of.num_kept, of.num_requests, of.num_tokens, of.cost if of.has_cost else None)
        for name, of in sorted(summary.recipes.items())
    ]
    total = manifest["num_prompt_tokens"] + manifest["num_reply_tokens"]
    whole: float | None = manifest.get("cost")
    # A log may hold requests of an earlier config, or a record hold one that others share: nothing below zero.
    rest = max(0, manifest["num_requests"] - sum(row.requests for row in rows))
    rest_tokens = max(0, total - sum(row.tokens for row in rows))
    rest_cost = None if whole is None else max(0.0, whole - sum(row.cost or 0.0 for row in rows))
    rows.append(_cost_row(_REST, 0, 0, rest, rest_tokens, rest_cost))
    kept = manifest["num_kept"]
    return [*rows, _cost_row("all", manifest["num_made"], kept, manifest["num_requests"], total, whole)]


def _cost_row(name: str, made: int, kept: int, requests: int, tokens: int, cost: float | None) -> CostRow:
    cost_each = cost / kept if kept and cost is not None else None
    return CostRow(name, made, kept, requests, tokens, cost, tokens / kept if kept else 0.0, cost_each)


def _share(num: int, of: int) -> float:
    return num / of if of else 0.0
