"""What judges are asked; the prompts are `grade.j2` and `compare.j2` beside this."""

import json
from collections.abc import Mapping
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
    prompt = _turns(question.record) or str(question.record.get("prompt", ""))
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


def turn_text(turn: Mapping[str, Any]) -> str:
    """What a turn says, with the tools that it calls as JSON."""
    content, calls = turn.get("content"), turn.get("tool_calls")
    said = [content if isinstance(content, str) else json.dumps(content)] if content is not None else []
    called = [json.dumps(calls, ensure_ascii=False)] if calls else []
    return "\n".join(filter(None, [*said, *called]))


def _turns(record: Mapping[str, Any]) -> str:
    """One turn alone, or all with their roles, behind the tools that they may call."""
    turns = [(str(turn.get("role")), turn_text(turn)) for turn in record.get("messages") or ()]
    if turns and (tools := record.get("tools")):
        turns.insert(0, ("tools", tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)))
    return turns[0][1] if len(turns) == 1 else "\n\n".join(f"[{role}]\n{text}" for role, text in turns)


@cache
def _template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True).get_template(name)
