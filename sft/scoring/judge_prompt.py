"""What judges are asked, and how their verdicts are read; the prompts are `grade.j2` and `compare.j2` beside this."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from sft.scoring.json_equal import json_in
from sft.scoring.scorer import Question

DEFAULT_RUBRIC = "The answer does what the prompt asks for, is right, and says no more than is useful."
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\d)")
_LETTER = re.compile(r"\b(A|B|tie)\b")
_RUBRIC_FILES = (".txt", ".md")
_MOST_RUBRIC_BYTES = 1 << 16


def judge_prompt(name: str, question: Question, **values: Any) -> str:
    """The prompt of this name about a question."""
    prompt = _turns(question.record.get("messages") or ()) or str(question.record.get("prompt", ""))
    return _template(name).render(prompt=prompt, references=question.references, **values)


def rubric_text(rubric: str) -> str:
    """The rubric, or the text of the file that it names.

    Raises:
        ValueError: the file cannot be read.
    """
    if "\n" in rubric or not rubric.endswith(_RUBRIC_FILES):
        return rubric
    try:
        with Path(rubric).open("rb") as file:
            return file.read(_MOST_RUBRIC_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from error


def graded(text: str, low: int, high: int) -> tuple[float | None, str]:
    """How far above the worst the grade in a reply is, and its reason; None with what is wrong.

    It is that of the reply's JSON, else the last number.
    """
    content = json_in(text)
    given = content.get("grade") if isinstance(content, dict) else None
    if isinstance(given, str) or given is None:
        found = _NUMBER.findall(given or text)
        given = float(found[-1]) if found else None
    if given is None or isinstance(given, bool) or not isinstance(given, int | float):
        return None, f"the judge gives no grade: {text[-200:]!r}"
    if not low <= given <= high:
        return None, f"the judge's grade {given:g} is not from {low} to {high}"
    return float(given) - low, _reason(content, text)


def labelled(text: str, labels: Sequence[str]) -> tuple[float | None, str]:
    """The place of the label in a reply, and its reason; None with what is wrong.

    It is that of the reply's JSON, else the label that comes last.
    """
    content = json_in(text)
    given = content.get("grade") if isinstance(content, dict) else None
    # The longest first, since one may be part of another: "right" of "partly right".
    longest = sorted(labels, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(label)}(?!\w)" for label in longest)
    found = re.findall(pattern, given if isinstance(given, str) else text, re.IGNORECASE)
    if not found:
        return None, f"the judge gives none of the labels {', '.join(labels)}: {text[-200:]!r}"
    return float([label.casefold() for label in labels].index(found[-1].casefold())), _reason(content, text)


def preferred(text: str) -> tuple[str | None, str]:
    """`A`, `B` or `tie`, and the reason; None with what is wrong."""
    content = json_in(text)
    given = content.get("better") if isinstance(content, dict) else None
    found = _LETTER.findall(given if isinstance(given, str) else text)
    return (found[-1], _reason(content, text)) if found else (None, f"the judge prefers nothing: {text[-200:]!r}")


def shape_of(name: str, values: list[Any]) -> dict[str, Any]:
    """The JSON schema of a verdict, for servers that offer structured output."""
    kind = "integer" if isinstance(values[0], int) else "string"
    properties = {"reason": {"type": "string"}, name: {"type": kind, "enum": values}}
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _reason(content: Any, text: str) -> str:
    reason = content.get("reason") if isinstance(content, dict) else None
    return reason if isinstance(reason, str) else text


def _turns(messages: Any) -> str:
    """One turn alone, or all with their roles."""
    texts = [
        (str(turn.get("role")), content if isinstance(content := turn.get("content"), str) else json.dumps(content))
        for turn in messages
    ]
    return texts[0][1] if len(texts) == 1 else "\n\n".join(f"[{role}]\n{text}" for role, text in texts)


@cache
def _template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True).get_template(name)
