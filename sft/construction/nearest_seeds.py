"""How near drafts lie to the seeds of their task: of each draft the nearest one, by ROUGE-L.

As in Self-Instruct (arXiv 2212.10560, figure 4), whose histogram is of all seeds; here it is of those of the draft's
task, which its teacher was shown, and both are compared by the words of `sft.construction.filters.compared_words`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sft.construction.prompt_pool import rouge_l_with
from sft.construction.shown_draft import ShownDraft

MOST_DRAFTS = 500
MOST_SEEDS = 256
"""Of a task."""


class Neighbour(NamedTuple):
    """A draft and the seed that is nearest to it."""

    similarity: float
    """ROUGE-L, 0 to 1."""
    draft: ShownDraft
    seed: ShownDraft


def nearest_seeds(drafts: Sequence[ShownDraft], seeds: Sequence[ShownDraft]) -> list[Neighbour]:
    """The neighbours of the first drafts, the nearest pair first; drafts without words or seeds to compare have none.

    Args:
        drafts: in an order that has nothing to do with what they are: the first `MOST_DRAFTS` are looked at.
        seeds: of all tasks; the first `MOST_SEEDS` of each are looked at.
    """
    of_task = defaultdict[str, list[ShownDraft]](list)
    for seed in seeds:
        if seed.compared and len(of_task[seed.task]) < MOST_SEEDS:
            of_task[seed.task].append(seed)
    found = [_nearest(draft, of_task[draft.task]) for draft in drafts[:MOST_DRAFTS] if draft.compared]
    return sorted((one for one in found if one is not None), key=lambda one: -one.similarity)


def _nearest(draft: ShownDraft, seeds: Sequence[ShownDraft]) -> Neighbour | None:
    best: Neighbour | None = None
    likeness = rouge_l_with(draft.compared)
    for seed in seeds:
        # No longer than the shorter of both: most seeds need no comparison.
        lengths = len(draft.compared), len(seed.compared)
        most = 2 * min(lengths) / sum(lengths)
        if best is None or most > best.similarity:
            similarity = likeness(seed.compared)
            if best is None or similarity > best.similarity:
                best = Neighbour(similarity, draft, seed)
    return best
