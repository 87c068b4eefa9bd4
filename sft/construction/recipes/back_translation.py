"""Instruction back-translation (Li et al. 2023, arXiv 2308.06259): from an answer, the instruction that it answers.

The answers are passages of the user's documents, or those of seeds. Curation, the paper's second step, asks the teacher
how good the pair is, from 1 to 5; `curation` in the scores is what it says.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sft.config_section import TaskName
from sft.construction.answer_form import read_object, schema_of
from sft.construction.recipes.documents import MAX_CHARS, MIN_CHARS, MaxChars, MinChars, Patterns, read_passages
from sft.construction.recipes.material import Material
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe
from sft.construction.script import Failed, Script

_INSTRUCTION: dict[str, type] = {"instruction": str}
_SCORE: dict[str, type] = {"score": int}
_SCORES = range(1, 6)
LEAKED = "its instruction holds the answer"
NO_SCORE = "the score is none of 1 to 5"
TOO_LOW = "its score is too low"


class _Answer(NamedTuple):
    id: str
    text: str
    system: str = ""


class BackTranslation(Recipe):
    """Instructions for answers that are there."""

    kind: ClassVar[str] = "back_translation"
    prompts: ClassVar[tuple[str, ...]] = ("back_translation", "back_translation_score")

    documents: Patterns = ()
    """Whose passages are the answers. Default: those of seeds are."""
    task: TaskName | None = None
    """What documents make; a task of the data or a new one."""
    min_chars: MinChars = MIN_CHARS
    """Shorter passages are left out."""
    max_chars: MaxChars = MAX_CHARS
    """Of a passage."""
    curate: bool = False
    """Whether the teacher scores each pair."""
    at_least: Annotated[int, Field(ge=1, le=5)] = 1
    """Pairs with a lower score make no record."""

    @model_validator(mode="after")
    def _one_kind_of_answers(self) -> Self:
        given = self.model_fields_set
        for problem, way_out in self._ambiguities(given):
            raise PydanticCustomError("ambiguous", problem, {"way_out": way_out})
        return self

    def _ambiguities(self, given: set[str]) -> Iterator[Any]:
        if self.documents and self.task is None:
            yield "documents have no task", "name what they make: `task: NAME`"
        if self.documents and given & {"tasks", "seeds"}:
            yield "answers come from `documents`, or from seeds of `tasks`", "leave one of them out"
        if self.task is not None and not self.documents:
            yield "`task` names what documents make", "give `documents`, or choose seeds by `tasks`"
        if "at_least" in given and not self.curate:
            yield "`at_least` is for scores", "add `curate: true`"

    @property
    def num_requests(self) -> int:
        """The instruction, and the score."""
        return 2 if self.curate else 1

    @property
    def new_task(self) -> str:
        """`task`, of documents."""
        return self.task or ""

    def material(self) -> Material:
        """The passages of the documents, if there are any."""
        return Material(read_passages(self.documents, self.min_chars, self.max_chars)) if self.documents else Material()

    def chain(self, about: About) -> Chain:
        """Answers in turn."""
        answers = [_Answer(passage.id, passage.text) for passage in about.material.passages]
        answers += [_Answer(seed.id, seed.answer, seed.system) for seed in about.seeds]
        return Independent(partial(self._script, about, about.shuffled(answers)))

    def _script(self, about: About, answers: Sequence[_Answer], number: int) -> Script:
        answer, scores = answers[number % len(answers)], dict[str, float]()
        prompt = about.prompt("back_translation", system=answer.system, answer=answer.text)
        reply = yield about.request(prompt, schema_of(_INSTRUCTION))
        instruction = read_object(reply, _INSTRUCTION)["instruction"]
        if len(answer.text.split()) > 3 and answer.text in instruction:
            return Failed(LEAKED)
        if self.curate:
            pair = {"instruction": instruction, "answer": answer.text}
            prompt = about.prompt("back_translation_score", system=answer.system, **pair)
            reply = yield about.request(prompt, schema_of(_SCORE), temperature=0.0)
            score = read_object(reply, _SCORE)["score"]
            if score not in _SCORES:
                return Failed(NO_SCORE)
            if score < self.at_least:
                return Failed(TOO_LOW)
            scores["curation"] = float(score)
        messages = {"role": "user", "content": instruction}, {"role": "assistant", "content": answer.text}
        evidence = {"answer_of": answer.id}
        return about.conversation(messages, [answer.id], system=answer.system, scores=scores, evidence=evidence)
