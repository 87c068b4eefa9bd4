"""docs/MAP.md names every module once, with the first sentence of its docstring. `make docs` writes it."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.test_layout import PACKAGES, python_files

HEAD = """\
<!-- Made of the modules' docstrings: `make docs` writes it. -->
# The map

Every module, with the first sentence of its docstring. Packages stand in the order of their floors: the upper imports
the lower, never the other way round. The contracts are in [pyproject.toml](../pyproject.toml), and a test runs them.
Each package draws its own data flow at the top of its `__init__.py`. What the parts are for, and why they are so:
[ARCHITECTURE.md](ARCHITECTURE.md).
"""


def floors(root: Path) -> dict[str, int]:
    """Module or package → its floor, from the top; only those that a contract names."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {
        f"{container}.{name.strip()}": floor
        for contract in contracts
        for container in contract.get("containers", ())
        for floor, layer in enumerate(contract["layers"])
        for name in re.split("[|:]", layer)
    }


def first_sentence(path: Path) -> str:
    text = path.read_text()
    # No more is parsed than the docstring with which a module begins.
    head = text[: text.find('"""', 3) + 3] if text.startswith('"""') else text
    docstring = ast.get_docstring(ast.parse(head)) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s(?=[A-Z`])", paragraph)[0].rstrip(".:")


def render(root: Path) -> str:
    """The page: a table for each package, in the order of the floors."""
    floor = floors(root)
    by_package: dict[str, list[str]] = {}
    for path in python_files(root, *PACKAGES):
        package = ".".join(path.relative_to(root).parent.parts)
        lines = by_package.setdefault(package, [])
        if path.stem != "__init__":
            lines.append(path.stem)

    def rank(package: str) -> list[tuple[int, str]]:
        parts = package.split(".")
        names = [".".join(parts[: number + 1]) for number in range(len(parts))]
        return [(0 if name in PACKAGES else floor.get(name, len(floor)), name) for name in names]

    sections = []
    for package in sorted(by_package, key=lambda package: (PACKAGES.index(package.split(".")[0]), rank(package))):
        folder = root.joinpath(*package.split("."))
        modules = sorted(by_package[package], key=lambda name: (floor.get(f"{package}.{name}", len(floor)), name))
        rows = [
            f"| `{name}` | {first_sentence(folder / f'{name}.py').replace('|', chr(92) + '|')} |" for name in modules
        ]
        summary = f"{first_sentence(folder / '__init__.py')}."
        sections.append("\n".join([f"## {package}", "", summary, "", "| module | |", "|---|---|", *rows]))
    return HEAD + "".join(f"\n{section}\n" for section in sections)


def test_the_map_names_every_module(root: Path, request: pytest.FixtureRequest) -> None:
    page, content = root / "docs" / "MAP.md", render(root)
    if request.config.getoption("--pin"):
        page.write_text(content, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == content
