"""What people say of a record in another tool: a verdict, a reason and an answer, or what is not understood."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sft.atomic_files import fingerprint

IMPORTED = "import-"
"""Names of decisions from other tools begin so."""
PARTS = ("verdict", "reason", "answer")
"""The names of what people say there."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Answered(NamedTuple):
    """What somebody said of a record in another tool."""

    record: str
    reviewer: str
    verdict: str
    reason: str = ""
    answer: str | None = None
    """None: the record's own."""
    seconds: float = 0.0
    given_out: str | None = None
    """The answer that the tool was given; None: unknown."""
    when: tuple[float, int] = (0.0, 0)
    """Orders what was said: the time, and a number that grows where times are equal."""
    unclear: str = ""
    """What of it is not understood; nothing of it counts then."""

    @property
    def name(self) -> str:
        """That of the decision, the first time that it is taken."""
        return f"{IMPORTED}{fingerprint([*self][:_NUM_NAMED])}"


_NUM_NAMED = Answered._fields.index("given_out")


def said_of(values: Iterable[tuple[str, Any]]) -> tuple[dict[str, str], str]:
    """What stands under each name, and what of it is not understood: each name has one text, by itself or in a list."""
    said: dict[str, str] = {}
    for name, value in values:
        texts = value if isinstance(value, list) else [value]
        if name not in PARTS:
            return said, f"it has a text that is named {name!r}: only {', '.join(PARTS)} are known"
        if not all(isinstance(text, str) for text in texts):
            return said, f"its {name!r} is no text"
        if len({*texts, *filter(None, [said.get(name)])}) > 1:
            return said, f"it has more than one {name!r}"
        if texts:
            said[name] = texts[0]
    return said, ""


def when_said(content: Any, changed: str, made: str) -> tuple[float, int]:
    """When something was said: what was changed later counts later, and without times what has the larger number."""
    at, number = value_at(content, changed) or value_at(content, made), value_at(content, "id")
    try:
        time = datetime.fromisoformat(at) if isinstance(at, str) else _LONG_AGO
    except ValueError:
        time = _LONG_AGO
    moment = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return moment, number if isinstance(number, int) else 0


def value_at(content: Any, *names: str) -> Any:
    """What stands below these names, one inside the other; None if nothing does."""
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def text_or_none(value: Any) -> str | None:
    """A text as it is, and None for all else."""
    return value if isinstance(value, str) else None


def list_or_empty(value: Any) -> list[Any]:
    """A list as it is, and an empty one for all else."""
    return value if isinstance(value, list) else []
