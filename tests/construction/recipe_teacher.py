"""A teacher by script that does what the prompts of all recipes ask for, and all recipes with material to work on."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a day.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 0}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time."}},
]
DOCUMENT = """# Rivers of Anduin

The river Anduin is 1,388 miles long. It springs in the Grey Mountains and ends in the Bay of Belfalas.

## Bridges

There are 3 bridges across it: at Cair Andros, at Osgiliath and at Pelargir. Osgiliath's bridge was broken in 2475.

```
bridge = "Osgiliath"

print(bridge)
```
"""
PERSONS = ["a baker in Lyon who keeps accounts by hand", "a nurse who works at night", "a retired judge"]


def recipes(folder: Path, num: int = 8) -> list[dict[str, Any]]:
    """One of each kind but those of `tests.construction.teaching`, and some in another way of theirs."""
    (folder / "doc.md").write_text(DOCUMENT)
    (folder / "tools.json").write_text(json.dumps(TOOLS))
    (folder / "persons.txt").write_text("\n".join(PERSONS))
    of_document = {"documents": str(folder / "*.md"), "min_chars": 40, "max_chars": 160}
    forms: list[dict[str, Any]] = [
        {"kind": "rejection_sampling", "verify": "numbers", "answers": 3},
        {"kind": "from_documents", "task": "rivers", **of_document},
        {"kind": "from_documents", "name": "closed_book", "task": "rivers", "with_passage": False, **of_document},
        {"kind": "evolve", "rounds": 2},
        {"kind": "back_translation", "curate": True},
        {"kind": "back_translation", "name": "back_from_documents", "task": "rivers", **of_document},
        {"kind": "multi_turn", "turns": 2},
        {"kind": "tool_calls", "task": "calls", "tools": str(folder / "tools.json")},
        {
            "kind": "tool_calls",
            "name": "bare_calls",
            "task": "calls",
            "tools": str(folder / "tools.json"),
            "results": False,
        },
        {"kind": "persona"},
        {"kind": "persona", "name": "persons", "personas": str(folder / "persons.txt")},
        {"kind": "paraphrase"},
    ]
    return [{**form, "num": num} for form in forms]


def teach(content: Mapping[str, Any]) -> str:
    """What it says depends on the conversation alone; one time in eight it is not what was asked for."""
    prompt = str(content["messages"][-1]["content"])
    digest = hashlib.sha256(json.dumps(content["messages"]).encode()).hexdigest()
    if digest[0] in "01":
        return "I would rather not."
    form = re.search(r'\{"(\w+)": [^\n]*\}$', prompt)
    if form is None or "Answer with a JSON object" not in prompt:
        number = re.search(r"Say (\d+) in words", prompt)
        return f"It is {number[1]}." if number else f"the answer {digest[:8]}"
    return json.dumps(_ANSWERS[form[1]](prompt, quoted(prompt), digest))


def quoted(prompt: str) -> list[Any]:
    """What stands in a prompt as a line of JSON."""
    found = []
    for line in prompt.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _instruction(prompt: str, given: list[Any], digest: str) -> Any:
    text = given[0] if isinstance(given[0], str) else given[0]["instruction"]
    return {"instruction": f"Explain at length {digest[:6]}: {text[:40]} {digest[6:12]}"}


def _pair(prompt: str, given: list[Any], digest: str) -> Any:
    first = re.split(r"(?<=[.:]) ", given[0])[0]
    return {"question": f"What is said of {digest[:6]} there?", "answer": first}


def _calls(prompt: str, given: list[Any], digest: str) -> Any:
    words = given[-1].split()
    cities = [word for word in words if word.startswith("city-")]
    made: list[Any] = [{"name": "weather", "arguments": {"city": city, "days": 2}} for city in cities]
    return {"calls": made + [{"name": "now", "arguments": {}}] * ("time" in words)}


def _request(prompt: str, given: list[Any], digest: str) -> Any:
    if "none of the tools" in prompt:
        return {"request": f"Why is rain wet, {digest[:5]} ?"}
    if "exactly one call" in prompt:
        return {
            "request": f"Rain in city-{digest[:5]} ?" if '"weather".' in prompt else f"{digest[:5]}, what time is it?"
        }
    return {"request": f"Rain in city-{digest[:5]} and city-{digest[5:9]} , and the time please?"}


_ANSWERS = {
    "question": _pair,
    "instruction": _instruction,
    "score": lambda prompt, given, digest: {"score": int(digest[5], 16) % 5 + 1},
    "message": lambda prompt, given, digest: {"message": f"And what of {digest[:12]}?"},
    "request": _request,
    "calls": _calls,
    "results": lambda prompt, given, digest: {"results": [f"sun {digest[:4]}" for _ in given[-1]["calls"]]},
    "persona": lambda prompt, given, digest: {"persona": f"a teacher of {digest[:6]}"},
    "prompt": lambda prompt, given, digest: {"prompt": given[-1].replace("Say", "Please spell out")},
}
