"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560): an instruction, then its input, then the answer.

    1  shown: instructions of seeds and of earlier drafts   asked: a new one, and whether it is a classification
    2  asked: its input; of a classification, a label       so that not all inputs have the same label
    3  asked: the answer; of a classification, an input that has this label

An instruction that is like a seed's or an earlier draft's (ROUGE-L of 0.7 or more) ends the try, before more is paid.
"""

from collections import defaultdict
from typing import ClassVar

from sft.construction.answer_form import FormError, read_object, read_text, schema_of
from sft.construction.prompt_pool import PromptPool
from sft.construction.recipes.recipe import About, Chain, Recipe
from sft.construction.script import Failed, Script
from sft.draft import Draft
from sft.scoring.words import words_of

_WINDOW = 64
_LIKE = 0.7
_INSTRUCTION: dict[str, type] = {"instruction": str, "is_classification": bool}
_INPUT: dict[str, type] = {"input": str}
_LABEL: dict[str, type] = {"output": str}
NOT_NEW = "its instruction is like one that was there"


class SelfInstruct(Recipe):
    """New instructions of the kind of a task, with inputs and answers."""

    kind: ClassVar[str] = "self_instruct"
    prompts: ClassVar[tuple[str, ...]] = (
        *("self_instruct_instruction", "self_instruct_input", "self_instruct_output"),
        *("self_instruct_label", "self_instruct_labelled_input"),
    )
    num_requests: ClassVar[int] = 3

    def chain(self, about: About) -> Chain:
        """The scripts for a task."""
        return _Chain(about)


class _Chain:
    window = _WINDOW
    _NUM_SEEDS, _NUM_DRAFTS = 6, 2
    """Shown in a prompt, as in the paper."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._drafted = defaultdict[str, list[tuple[str, str]]](list)
        """By system text."""
        self._pool = PromptPool(_LIKE)
        for seed in about.seeds:
            self._pool.add(words_of(seed.prompt))

    def script(self, number: int) -> Script:
        """Three requests."""
        about, random, num_seen = self._about, self._about.random(number), len(self._pool)
        system, alike = about.alike(random)
        drafted = self._drafted[system]
        drafts = random.sample(drafted, min(self._NUM_DRAFTS, len(drafted)))
        seeds = random.sample(alike, min(self._NUM_SEEDS, len(alike)))
        shown = [*((seed.id, seed.prompt) for seed in seeds), *drafts]
        random.shuffle(shown)
        try:
            prompt = about.prompt("self_instruct_instruction", system=system, instructions=[text for _, text in shown])
            reply = yield about.request(prompt, schema_of(_INSTRUCTION))
            found = read_object(reply, _INSTRUCTION)
            instruction = found["instruction"]
            if not self._is_new(instruction, num_seen):
                return Failed(NOT_NEW)
            if found["is_classification"]:
                prompt = about.prompt("self_instruct_label", system=system, instruction=instruction)
                output = read_object((yield about.request(prompt, schema_of(_LABEL))), _LABEL)["output"]
                pair = {"instruction": instruction, "output": output}
                prompt = about.prompt("self_instruct_labelled_input", system=system, **pair)
                given = read_object((yield about.request(prompt, schema_of(_INPUT))), _INPUT)["input"]
            else:
                prompt = about.prompt("self_instruct_input", system=system, instruction=instruction)
                reply = yield about.request(prompt, schema_of(_INPUT))
                given = read_object(reply, _INPUT, may_be_empty=("input",))["input"]
                prompt = about.prompt("self_instruct_output", instruction=instruction, input=given)
                output = read_text((yield about.request(prompt, system=system)))
        except FormError as error:
            return error.failed
        whole = f"{instruction}\n\n{given}" if given else instruction
        return about.draft(whole, output, [of for of, _ in shown], system=system, instruction=instruction)

    def take(self, draft: Draft) -> str | None:
        """Drop what another draft that this one did not see has made, too."""
        instruction = draft.evidence["instruction"]
        if not self._is_new(instruction, len(self._pool)):
            return NOT_NEW
        self._pool.add(words_of(instruction))
        first = draft.messages[0]
        self._drafted[first["content"] if first["role"] == "system" else ""].append((draft.id, instruction))
        return None

    def _is_new(self, instruction: str, num_seen: int) -> bool:
        return self._pool.find(words_of(instruction), num_seen) is None
