"""docs/INVARIANTS.md names tests that are there: `folder/test_x.py::test_name`; a name alone is in the file before."""

import ast
import re
from pathlib import Path

from tests.architecture.test_layout import parsed

REFERENCE = re.compile(r"`(?:([\w/]+\.py)(?:::)?)?(\w*)`")


def test_each_invariant_names_tests_that_are_there(root: Path) -> None:
    lines = (root / "docs" / "INVARIANTS.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ") for line in lines if line.startswith("| ") and line != "| invariant | test |"]
    assert len(rows) > 100
    missing = []
    for row in rows:
        invariant, _, named = row.partition(" | ")
        path = ""
        for file, name in REFERENCE.findall(named):
            path = file or path
            if name not in defined_in(root / "tests" / path):
                missing.append(f"{invariant}: {path}::{name}")
        if REFERENCE.sub("", named).strip(", ") or not path:
            missing.append(f"{invariant}: {named}")
    assert missing == []


def defined_in(path: Path) -> set[str]:
    """The functions of a test file, and the empty name, which stands for all of them; none where there is no file."""
    if not path.is_file():
        return set()
    return {node.name for node in parsed(path).body if isinstance(node, ast.FunctionDef)} | {""}
