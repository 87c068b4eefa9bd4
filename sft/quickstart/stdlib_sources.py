"""Turns the source files of Python's standard library into functions and classes that tasks can ask about.

Files are parsed, never imported, and come in sorted order: the same Python gives the same lists. Private modules,
tests, and packages that are deprecated or that some installations lack are left out.
"""

import ast
import copy
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_LEFT_OUT = frozenset(
    {
        "antigravity",
        "distutils",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "this",
        "tkinter",
        "turtledemo",
    }
)
# Private, a folder of tests, or only for one operating system.
_LEFT_OUT_PART = re.compile(r"_|tests?$|windows_|\w*_win32$")


@dataclass(frozen=True)
class LibraryModule:
    """One parsed source file."""

    name: str
    """Dotted, such as `urllib.parse`."""
    lines: tuple[str, ...]
    tree: ast.Module


@dataclass(frozen=True)
class LibraryFunction:
    """A function or method; `code` is its source without decorators and docstring, at indentation 0."""

    module: str
    class_name: str | None
    node: FunctionNode
    summary: str
    """The first paragraph of the docstring on one line; empty if it is not a plain sentence."""
    code: str

    @property
    def key(self) -> str:
        """The dotted name, unique over all modules."""
        return ".".join(filter(None, (self.module, self.class_name, self.node.name)))

    @property
    def signature(self) -> str:
        """The `def` line on one line, ending in a colon."""
        return ast.unparse(_without_body(self.node)).removesuffix("\n    pass").strip()


@dataclass(frozen=True)
class LibraryClass:
    """A class at the top level of a module, with its bases as in the source."""

    module: str
    name: str
    bases: tuple[str, ...]
    summary: str


def read_modules() -> list[LibraryModule]:
    """Every public module of the standard library that is written in Python and parses."""
    root = Path(os.__file__).parent
    modules = []
    for top in sorted(sys.stdlib_module_names - _LEFT_OUT):
        folder = root / top
        paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        for path in paths:
            parts = path.relative_to(root).with_suffix("").parts
            names = parts[:-1] if parts[-1] == "__init__" else parts
            if path.is_file() and not any(_LEFT_OUT_PART.match(part) for part in names):
                modules += _parse(".".join(names), path)
    return modules


def read_functions(modules: list[LibraryModule]) -> list[LibraryFunction]:
    """The functions and methods that do something, without nested ones, in the order of the source."""
    functions = []
    for module in modules:
        for class_name, node in _definitions(module.tree):
            code = _code_without_docstring(module.lines, node)
            if code:
                summary = _summary(ast.get_docstring(node))
                functions.append(LibraryFunction(module.name, class_name, node, summary, code))
    return functions


def read_classes(modules: list[LibraryModule]) -> list[LibraryClass]:
    """The public classes at the top level of modules, in the order of the source."""
    return [
        LibraryClass(module.name, node.name, tuple(map(ast.unparse, node.bases)), _summary(ast.get_docstring(node)))
        for module in modules
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def find_homes(modules: list[LibraryModule]) -> dict[str, str]:
    """The package that re-exports a submodule's name: `asyncio` for `asyncio.tasks.gather`."""
    homes: dict[str, str] = {}
    exported = {module.name: _exported_names(module.tree) for module in modules}
    public = {module.name: _public_names(module.tree) for module in modules}
    for package in modules:
        for node in package.tree.body:
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            source = f"{package.name}.{node.module}" if node.level == 1 else node.module
            passed_on = {alias.name for alias in node.names if alias.asname is None}
            if source in public and source.startswith(f"{package.name}."):
                passed_on |= exported[source] if "*" in passed_on else set()
                homes |= {f"{source}.{name}": package.name for name in sorted(passed_on & public[source])}
    return homes


def _parse(name: str, path: Path) -> list[LibraryModule]:
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            # Old files hold escapes that newer Pythons warn about.
            warnings.simplefilter("ignore")
            return [LibraryModule(name, tuple(text.splitlines()), ast.parse(text))]
    except (SyntaxError, UnicodeDecodeError):
        return []


def _definitions(tree: ast.Module) -> Iterator[tuple[str | None, FunctionNode]]:
    for node in tree.body:
        if isinstance(node, FunctionNode):
            yield None, node
        elif isinstance(node, ast.ClassDef):
            yield from ((node.name, child) for child in node.body if isinstance(child, FunctionNode))


def _public_names(tree: ast.Module) -> set[str]:
    return {
        node.name
        for node in tree.body
        if isinstance(node, FunctionNode | ast.ClassDef) and not node.name.startswith("_")
    }


def _exported_names(tree: ast.Module) -> set[str]:
    """The names that `import *` imports: those in `__all__`, or the public ones if there is no such list."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {str(child.value) for child in ast.walk(node.value) if isinstance(child, ast.Constant)}
    return _public_names(tree)


def _without_body(node: FunctionNode) -> FunctionNode:
    bare = copy.copy(node)
    bare.body, bare.decorator_list = [ast.Pass()], []
    return bare


def _code_without_docstring(lines: tuple[str, ...], node: FunctionNode) -> str:
    """The function's lines; empty where nothing is left, or where the docstring shares a line with code."""
    assert node.end_lineno is not None
    kept = list(range(node.lineno, node.end_lineno + 1))
    body = node.body
    if ast.get_docstring(node) is not None:
        first, body = body[0], body[1:]
        assert first.end_lineno is not None
        if first.lineno == node.lineno or (body and body[0].lineno == first.end_lineno):
            return ""
        kept = [line for line in kept if not first.lineno <= line <= first.end_lineno]
    if not body or all(isinstance(statement, ast.Pass | ast.Raise) for statement in body):
        return ""
    code = textwrap.dedent("\n".join(lines[line - 1] for line in kept))
    return re.sub(r"\n\s*\n+", "\n", code).strip().expandtabs(4)


def _summary(docstring: str | None) -> str:
    """The first paragraph on one line, if it is a sentence without markup and examples, else empty."""
    paragraph = re.sub(r"\s+", " ", (docstring or "").strip().split("\n\n")[0]).strip()
    is_sentence = re.match(r"[A-Z][a-z]", paragraph) and paragraph.endswith(".") and paragraph.count(" ") >= 3
    is_markup = re.search(r"->|>>>|::|:param|@param|:class:|:meth:|XXX|TODO|FIXME| - | \* |={3}", paragraph)
    is_pointer = re.match(r"(See|Deprecated|Overrid|Internal|Same as|Like )\b", paragraph)
    return paragraph if is_sentence and not is_markup and not is_pointer and len(paragraph) <= 320 else ""
