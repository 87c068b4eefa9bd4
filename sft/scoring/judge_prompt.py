"""What judges are asked; the prompts are `grade.j2` and `compare.j2` beside this."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from sft.scoring.scorer import Question

DEFAULT_RUBRIC = "The answer does what the prompt asks for, is right, and says no more than is useful."
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
