"""Drops drafts in another language than those that are wanted, as far as a text is long enough to tell.

Languages are told apart by py3langid (Lui and Baldwin 2012: runs of bytes, naive Bayes), which needs no download. Short
texts, lists of names and code are often not told with certainty: those are kept.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PositiveInt

from sft.construction.filters.draft_parts import DraftParts, answers_of, prompt_of
from sft.construction.filters.filter import Filter, Look, Surroundings
from sft.construction.filters.refusals import unquoted
from sft.errors import UserError

_NO_LANGUAGE = "zxx"
_MOST_CHARS = 2000
"""As many tell the language, and a long text takes no longer."""


def _codes(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


class Language(Filter):
    """Prompts and answers in languages that are not wanted."""

    name: ClassVar[str] = "language"
    shorthand: ClassVar[str] = "allowed"
    example: ClassVar[str] = "[en]"

    allowed: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...], BeforeValidator(_codes), Field(min_length=1)
    ]
    """The languages that are wanted, by their codes of ISO 639-1, such as `[en, de]`."""
    min_chars: PositiveInt = 40
    """Shorter texts are not judged."""
    certainty: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """The least probability of another language for which a draft is dropped."""

    def look(self, around: Surroundings) -> Look:
        """By what tells languages apart.

        Raises:
            UserError: it is not installed, or does not know a language.
        """
        _, known = _classifier()
        if unknown := [code for code in self.allowed if code not in known]:
            raise UserError(
                f"construct.filters.language: py3langid does not know {', '.join(unknown)}. It knows "
                f"{', '.join(sorted(known))}."
            )
        return _LanguageLook(self)


class _LanguageLook(Look):
    def __init__(self, given: Language) -> None:
        self._given = given

    def see(self, parts: DraftParts) -> str | None:
        """The prompt, then each answer; what is quoted and code does not count."""
        classify, draft = _classifier()[0], parts.draft
        for part, text in (("prompt", prompt_of(draft)), *(("answer", answer) for answer in answers_of(draft))):
            said = unquoted(text).strip()[:_MOST_CHARS]
            if len(said) < self._given.min_chars:
                continue
            language, certainty = classify(said)
            wanted = (*self._given.allowed, _NO_LANGUAGE)
            if certainty >= self._given.certainty and language not in wanted:
                return f"the {part} is in another language ({language})"
        return None


@cache
def _classifier() -> tuple[Callable[[str], tuple[str, float]], list[str]]:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415  (an extra)
    except ImportError:
        raise UserError(
            "construct.filters.language needs the package py3langid: pip install 'sft[language]'."
        ) from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return identifier.classify, [*identifier.labels]
