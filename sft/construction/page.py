"""What a construction has made, as one self-contained HTML page: no script, and nothing to load from elsewhere.

    folder, seeds ──read_summary──▶ Summary ──render_page──▶ construct.html

Invariant: what teachers and data say is escaped, and only ever text. The same folder gives the same page. Its size does
not grow with the number of records: counts are of all, texts are drawn by seed, and the page says so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sft.atomic_files import write_text
from sft.construction.filters.compared_words import ComparedWords
from sft.construction.folder import ConstructionFolder
from sft.construction.nearest_seeds import Neighbour, nearest_seeds
from sft.construction.outcome_summary import MOST_DRAWN, Summary, read_summary
from sft.construction.page_tables import cost_rows, funnel_rows, part_rows
from sft.construction.recipes.recipe import Seed
from sft.construction.shown_draft import ShownDraft
from sft.construction.variety import SIZES, varieties
from sft.disk_words import MAKE_ROOM, told_of_disk
from sft.pages import page_environment
from sft.printable import counted, short_name

_MOST_KEPT = 8
_MOST_PAIRS = 10
_NUM_BINS = 20
_QUANTILES = 0.05, 0.5, 0.95


def write_page(folder: ConstructionFolder, seeds: Sequence[tuple[str, Seed]] = ()) -> Summary:
    """Write `construct.html` beside the records; returns what was read for it.

    Args:
        folder: of a construction.
        seeds: what the teacher was shown, each with its task.

    Raises:
        UserError: the folder is damaged, or the page cannot be written.
    """
    words = ComparedWords(seeds)
    summary = read_summary(folder, words)
    # In an order of their own, so that those of each task count alike where not all do.
    drawn = [ShownDraft.of_seed(task, seed, words) for task, seed in sorted(seeds, key=lambda one: one[1].id)]
    page = render_page(folder.path.name, summary, drawn)
    with told_of_disk(folder.page, MAKE_ROOM):
        write_text(folder.page, page)
    return summary


def render_page(name: str, summary: Summary, seeds: Sequence[ShownDraft]) -> str:
    """The page as text.

    Args:
        name: its title.
        summary: what became of the drafts.
        seeds: what the teacher was shown.
    """
    environment = page_environment("sft.construction")
    environment.filters |= {
        "css": lambda share: f"{100 * share:.3f}%",
        "percent": lambda share: f"{share:.1%}",
        "decimal": lambda value: f"{value:.2f}",
        "number": lambda num: f"{num:,.0f}",
        "number_or_dash": lambda num: f"{num:,.0f}" if num else "–",
        "signed": lambda num: f"−{num:,}" if num else "0",
        "money": lambda cost: "–" if cost is None else f"{cost:,.4g}" if cost < 1 else f"{cost:,.2f}",
        "from": lambda draft: f"{short_name(draft.task)} · {short_name(draft.recipe)}",
    }
    manifest, kept = summary.manifest, summary.kept.things
    rows, num_rows = part_rows(summary)
    costs = cost_rows(summary)
    sides = [(name, kind, one) for name, kind, one in (("seeds", "seed", seeds), ("kept", "kept", kept)) if one]
    wordings = zip([side[:2] for side in sides], varieties(*(one for _, _, one in sides)), strict=True)
    return environment.get_template("construct_page.html.j2").render(
        title=name,
        status=_status(manifest),
        facts=_facts(manifest),
        num_kept=summary.kept.num_offered,
        num_drawn=len(kept),
        is_sample=summary.kept.num_offered > MOST_DRAWN,
        funnel=funnel_rows(summary),
        filters=summary.filters,
        rows=rows,
        num_rows=num_rows,
        reasons=[(why, num, summary.examples[why].things) for why, num in summary.reasons.most_common()],
        not_made=[*manifest["not_made"].items()],
        kept=kept[:_MOST_KEPT],
        costs=costs,
        has_cost=manifest.get("cost") is not None,
        lengths=_lengths(sides) if kept else [],
        neighbours=_neighbours(nearest_seeds(kept, seeds)),
        wordings=[(*of, variety) for of, variety in wordings],
        sizes=SIZES,
        section=yaml.safe_dump(manifest.get("construct", {}), sort_keys=False, allow_unicode=True),
    )


def _status(manifest: Mapping[str, Any]) -> str:
    if not manifest["num_open"]:
        return "constructed data"
    return f"constructed data, not finished: {counted(manifest['num_open'], 'record')} not asked yet"


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value, and a remark under it."""
    made, kept = manifest["num_made"], manifest["num_kept"]
    share = f"{kept / made:.1%} of what was made" if made else ""
    tokens = manifest["num_prompt_tokens"], manifest["num_reply_tokens"]
    cost, reached = manifest.get("cost"), manifest.get("reached")
    probes = manifest.get("num_probes", 0)
    of_requests = [f"{probes:,} of them to see whether a teacher still answers"] if probes else []
    of_requests += [f"construct.{reached} is reached"] if reached else []
    facts = [
        ("wanted", f"{manifest['num_wanted']:,}", ""),
        ("made", f"{made:,}", f"{manifest['num_not_made']:,} not made"),
        ("kept", f"{kept:,}", share),
        ("dropped", f"{manifest['num_dropped']:,}", "by filters"),
        ("requests", f"{manifest['num_requests']:,}", "; ".join(of_requests)),
        ("tokens", f"{sum(tokens):,}", f"{tokens[0]:,} of prompts, {tokens[1]:,} of answers"),
    ]
    return facts if cost is None else [*facts, ("cost", f"{cost:,.2f}", "in the currency of the price")]


def _lengths(sides: Sequence[tuple[str, str, Sequence[ShownDraft]]]) -> list[dict[str, Any]]:
    """Of prompts and of answers: shares in bins whose ends double."""
    parts = []
    for title, field in (("prompts", "num_prompt_words"), ("answers", "num_answer_words")):
        numbers = {name: sorted(getattr(draft, field) for draft in one) for name, _, one in sides}
        most = max(own[-1] for own in numbers.values())
        edges = [0, *(1 << power for power in range(most.bit_length() + 1))]
        labels = [f"{a}" if b - a == 1 else f"{a}–{b - 1}" for a, b in zip(edges, edges[1:], strict=False)]
        counts = {n: [sum(a <= x < b for x in own) for a, b in zip(edges, edges[1:], strict=False)]
                  for n, own in numbers.items()}  # fmt: skip
        bars = [(name, kind, [num / len(one) for num in counts[name]]) for name, kind, one in sides]
        quantiles = [(name, [own[int(q * (len(own) - 1))] for q in _QUANTILES]) for name, own in numbers.items()]
        parts.append({"title": title, "quantiles": quantiles, "columns": _columns(labels, bars)})
    return parts


def _neighbours(found: Sequence[Neighbour]) -> dict[str, Any] | None:
    if not found:
        return None
    bins = [0] * _NUM_BINS
    for one in found:
        bins[min(_NUM_BINS - 1, math.floor(one.similarity * _NUM_BINS))] += 1
    labels = [f"{place / _NUM_BINS:.2f}" for place in range(_NUM_BINS)]
    shares = [num / len(found) for num in bins]
    median = found[len(found) // 2].similarity
    columns = _columns(labels, [("kept", "kept", shares)])
    return {"num": len(found), "median": median, "columns": columns, "nearest": found[:_MOST_PAIRS]}


def _columns(labels: Sequence[str], bars: Sequence[tuple[str, str, Sequence[float]]]) -> dict[str, Any]:
    """The highest share, and each bin with its bars: name, kind, share, and height beside the highest."""
    highest = max((share for _, _, shares in bars for share in shares), default=0.0) or 1.0
    bins = [
        (label, [(name, kind, shares[place], shares[place] / highest) for name, kind, shares in bars])
        for place, label in enumerate(labels)
    ]
    return {"highest": highest, "bins": bins}
