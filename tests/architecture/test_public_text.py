"""What stands in the files that everybody gets."""

import re
from pathlib import Path

import pytest

RULES = {
    "a path of one developer's machine": r"(?<![\w.~-])/(?:work|root|home)/",
    "the host of a package registry": (
        r"\b(?:pypi|pythonhosted|npmjs|debian|anaconda|golang|crates|docker|quay|ghcr|download\.pytorch)"
        r"\.(?:org|com|io)\b"
    ),
    "a mark of an unfinished merge": r"^(?:<{7}|={7}|>{7})(?: |$)",
    "a to-do without the number of its issue, as in TODO(#12)": r"(?:# ?TODO\b|\bTODO(?=[:(]))(?!\(#\d+\))",
}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_holds(rule, project_files, root):
    found = []
    for path in project_files:
        if path == Path("LICENSE"):
            continue
        try:
            text = (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{path}:{number}: {line.strip()}" for number, line in lines if re.search(RULES[rule], line)]
    assert found == []
