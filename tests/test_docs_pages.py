"""The pages of the docs name messages, files and tests that are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAQ = (ROOT / "docs" / "FAQ.md").read_text(encoding="utf-8")
EXTENDING = (ROOT / "docs" / "EXTENDING.md").read_text(encoding="utf-8")
COMPATIBILITY = (ROOT / "docs" / "COMPATIBILITY.md").read_text(encoding="utf-8")


def texts(file: Path) -> Iterator[str]:
    """Every text in the code, `…` for what is filled in."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def code() -> str:
    """A text a line."""
    files = [file for package in ("sft", "launcher") for file in sorted((ROOT / package).rglob("*.py"))]
    return "\n".join(" ".join(text.split()) for file in files for text in texts(file))


def test_every_message_of_the_faq_is_one_of_the_program(code: str) -> None:
    messages = re.findall("^### `(.*)`$", FAQ, re.MULTILINE)
    assert len(messages) > 50
    unknown = []
    for message in messages:
        parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" .:;,")]
        if not re.search("[^\n]*".join(parts), code):
            unknown.append(message)
    assert not unknown, f"these are said no more: {unknown}"


def test_the_files_that_a_change_touches_are_there() -> None:
    paths = {path for path in re.findall(r"`((?:sft|launcher|tests|slurm|docs|configs)/[\w/.-]+)`", EXTENDING)}
    assert len(paths) > 25
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


def test_every_promise_of_compatibility_has_its_test() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", COMPATIBILITY)
    assert len(named) > 5
    assert not [each for each in named if f"def {each[1]}(" not in (ROOT / "tests" / each[0]).read_text()]
