"""Where files lie, how long they are and what they are called."""

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

PACKAGES = ("sft", "launcher")
MAX_LINES = 400
BANNED = {"utils", "helpers", "common", "misc", "base", "core", "manager", "handler", "wrapper"}
TOP_LEVEL = {
    *("sft", "launcher", "configs", "slurm", "tests", "docs", "benchmarks"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml", "constraints.txt"),
    *(".ci", ".gitignore", ".pre-commit-config.yaml"),
}


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    return (path for folder in folders for path in sorted((root / folder).rglob("*.py")))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name: HTTPBaseReader → http, base, reader."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_a_file_holds_at_most_400_lines(root):
    lengths = {str(p.relative_to(root)): len(p.read_text().splitlines()) for p in python_files(root, *PACKAGES)}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_names_say_what_is_inside(root):
    names = {}
    for path in python_files(root, *PACKAGES, "tests"):
        place = path.relative_to(root)
        names[str(place)] = words(str(place.with_suffix("")))
        for name in re.findall(r"^ *class (\w+)", path.read_text(), re.MULTILINE):
            names[f"{place}: class {name}"] = words(name)
    assert {name: sorted(found & BANNED) for name, found in names.items() if found & BANNED} == {}


def test_words_are_whole():
    assert words("HTTPBaseReader") == {"http", "base", "reader"}
    assert words("DatabaseCore") == {"database", "core"}
    assert words("zero3_config") == {"zero", "config"}


def test_every_package_says_what_it_is(root):
    folders = {path.parent for path in python_files(root, *PACKAGES)}
    inits = {folder / "__init__.py" for folder in folders}
    silent = [p for p in inits if not p.is_file() or not ast.get_docstring(ast.parse(p.read_text()))]
    assert sorted(str(path.relative_to(root)) for path in silent) == []


def test_the_top_level_is_fixed(project_files):
    assert {path.parts[0] for path in project_files} - TOP_LEVEL == set()


def test_git_ignores_no_source(ignored_files):
    sources = [path for path in ignored_files if path.parts[0] in TOP_LEVEL and path.suffix != ".pyc"]
    assert sources == []


def test_files_of_a_run_folder_are_spelled_in_one_module(root):
    """But for its config and its manifest, which are called like those of other folders."""
    home = root / "sft/run_folder.py"
    names = {name for name in spelled(home) if re.search(r"\w{3}.*\.\w", name)} - {"manifest.json", "config.yaml"}
    assert {"began.json", "rank-\0.json", "metrics.jsonl", "\0.events.jsonl"} <= names
    a_name = re.compile("|".join(re.escape(name).replace("\0", ".*") for name in names))
    found = {
        f"{path.relative_to(root)}: {text}"
        for path in python_files(root, *PACKAGES)
        if path != home and a_name.search(path.read_text())
        for text in spelled(path)
        if a_name.fullmatch(text.rpartition("/")[2])
    }
    assert found == set()


def spelled(path: Path) -> set[str]:
    """The texts without white space in a module's code, as names of files are; what is put into one is a NUL."""
    texts, parts = set(), set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            texts.add("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            texts.add(node.value)
    return {text for text in texts if not re.search(r"\s", text)}


def test_every_folder_of_tests_is_run_by_make(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    folders = {path.parent.name for path in (root / "tests").rglob("test_*.py")}
    left_out = {name for name in folders for pattern in settings["norecursedirs"] if fnmatch(name, pattern)}
    recipes = (root / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    runs = [line for line in recipes if re.search(r"pytest .* -m (long|'not long')", line)]
    assert len([line for line in runs if "tests/" not in line]) == 2, "what is not left out is run as a whole"
    assert "slurm" in folders
    assert left_out == {folder for line in runs for folder in re.findall(r"tests/(\w+)", line)}
