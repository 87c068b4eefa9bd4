"""Drops answers whose code does not pass the draft's tests, in the sandbox of `sft.scoring.sandbox`."""

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from sft.construction.filters.draft_parts import answer_of, text_evidence, text_list_evidence
from sft.construction.filters.filter import Judge, Surroundings, Verifier
from sft.draft import Draft
from sft.errors import UserError
from sft.scoring.scorer import Answer, Question


class CodeAnswer(Verifier):
    """Whether the Python in an answer passes its `tests`, behind its `setup_code`."""

    name: ClassVar[str] = "code"
    word: ClassVar[str] = "tests"

    example: ClassVar[str] = "{allow_code: true}"

    allow_code: bool = Field(default=False, validate_default=True)
    """Whether code that a model wrote may run here, in the sandbox."""
    seconds: Annotated[float, Field(gt=0.0, le=600.0)] = 10.0
    """The most time for an answer and its tests."""
    memory_mib: Annotated[int, Field(ge=64, le=65536)] = 512
    """The most memory of each of its processes, in MiB."""

    @field_validator("allow_code")
    @classmethod
    def _is_allowed(cls, allow_code: bool) -> bool:
        if not allow_code:
            raise ValueError("it runs code that a model wrote, which is off unless it is asked for: {allow_code: true}")
        return allow_code

    def begin(self, around: Surroundings) -> Judge:
        """Prove the sandbox first.

        Raises:
            UserError: code cannot be run safely on this machine.
        """
        return _CodeJudge(self)


class _CodeJudge(Judge):
    def __init__(self, given: CodeAnswer) -> None:
        # A config is read without these.
        from sft.scoring.judging import Judging  # noqa: PLC0415
        from sft.scoring.registry import read_score  # noqa: PLC0415

        self._required = given.required
        score = read_score({"name": "code", "seconds": given.seconds, "memory_mib": given.memory_mib})
        try:
            self._judging = Judging(score, allow_code=True)
        except UserError as error:
            raise UserError(f"construct.filters.code: {str(error).removeprefix('score: code: ')}") from error

    def judge(self, draft: Draft, seen: object) -> str | None:
        """Run it."""
        del seen
        tests = tuple(text_list_evidence(draft, "tests"))
        if not tests:
            return "it has no tests" if self._required else None
        question = Question(tests=tests, setup_code=text_evidence(draft, "setup_code"))
        verdict = self._judging.judge(Answer(answer_of(draft)), question)
        if verdict.failed:
            return "its tests cannot tell whether the code is right"
        # What an error says is of one draft; its kind is of many.
        return None if verdict.scores["passed"] else f"its tests fail: {verdict.note.split(':')[0]}"
