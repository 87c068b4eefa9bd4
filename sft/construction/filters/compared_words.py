"""The words by which a draft is compared with what is there: its instruction, or its prompt without its task's wording.

Where a draft has an instruction beside its input, the instruction is compared, as in Self-Instruct (arXiv 2212.10560).
Else it is the prompt, without the passage that it is about and without the words that more than half of the task's
seeds have: two questions that differ in their sentence alone would be alike otherwise.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sft.construction.filters.draft_parts import prompt_of, text_evidence
from sft.construction.recipes.recipe import Seed
from sft.draft import Draft
from sft.scoring.words import words_of

_FEWEST_SEEDS = 4
"""Of a task, so that its wording can be told."""
_FEWEST_OWN_WORDS = 4


class ComparedWords:
    """Knows the wording of each task."""

    def __init__(self, seeds: Sequence[tuple[str, Seed]]) -> None:
        """`seeds`: each with its task."""
        self._wordings = wordings_of(seeds)

    def of(self, draft: Draft) -> list[str]:
        """Of a draft; none where only an equal prompt is a copy."""
        if instruction := text_evidence(draft, "instruction"):
            return words_of(instruction)
        prompt, passage = prompt_of(draft), text_evidence(draft, "passage").strip()
        return self.of_prompt(prompt.replace(passage, " ") if passage else prompt, draft.task)

    def of_prompt(self, prompt: str, task: str) -> list[str]:
        """Of a prompt without evidence, such as a seed's; none if it has fewer than four words of its own."""
        wording = self._wordings.get(task, frozenset())
        words = [word for word in words_of(prompt) if word not in wording]
        return words if len(words) >= _FEWEST_OWN_WORDS else []


def wordings_of(seeds: Sequence[tuple[str, Seed]]) -> Mapping[str, frozenset[str]]:
    """Task → the words that more than half of its seeds have; of tasks with few seeds, none."""
    nums, counts = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for task, seed in seeds:
        nums[task] += 1
        counts[task].update({*words_of(seed.prompt)})
    return {
        task: frozenset(word for word, num in counts[task].items() if 2 * num > nums[task])
        for task in nums
        if nums[task] >= _FEWEST_SEEDS
    }
