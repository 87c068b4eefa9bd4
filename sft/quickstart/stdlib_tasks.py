"""Turns Python's standard library into instruction records of ten tasks, as uneven in size as real mixtures.

A record is `{"instruction", "input", "output", "task"}`. Invariants: the same Python gives the same records in the same
order; only one task asks about each function, so a task held out of training (such as `name_function`) shares no
function with the others; no record is longer than `MAX_CHARS`.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sft.atomic_files import write_text
from sft.paused_collector import paused_collector
from sft.quickstart.stdlib_sources import (
    FunctionNode,
    LibraryClass,
    LibraryFunction,
    find_homes,
    read_classes,
    read_functions,
    read_modules,
)
from sft.quickstart.stdlib_topics import Explanation, read_explanations
from sft.seeds import derive_seed

Record = dict[str, str]
"""The keys are `instruction`, `input`, `output` and `task`."""
Answer = tuple[str, str] | None
"""The input and the output, or None where the task does not suit the function."""

MAX_CHARS = 1100
"""Instruction, input and output together: about 350 tokens of code."""

PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "docstring_from_code": (
        "Summarize in one or two sentences what this Python function does.",
        "Write a short docstring for this function.",
        "What does the following Python code do? Answer briefly.",
        "Describe the purpose of this function as its docstring would.",
    ),
    "code_from_docstring": (
        "Write the Python function that fits this signature and docstring.",
        "Implement this function. Answer with code only.",
        "Complete the following Python function. Give the whole function.",
    ),
    "name_function": (
        "Suggest a name for a Python function with this description. Answer with the name only.",
        "What would be a good name for the function described here?",
        "Name the function that does the following. Give only the identifier.",
    ),
    "which_module": (
        "Which module of Python's standard library provides this? Answer with the module's dotted name.",
        "Name the standard library module that the following belongs to.",
        "From which Python module can this be imported? Give the module name only.",
    ),
    "list_parameters": (
        "List the parameter names of this function as a JSON list, in order.",
        "Which parameters does this Python function take? Answer with a JSON list of names.",
        "Extract all parameter names, self included if it is one, as a JSON array of strings.",
    ),
    "default_value": (
        "What is the default value of the parameter named below the signature?",
        "Give the default of the parameter in question, as Python code.",
        "If the caller leaves out this parameter, which value does it have?",
    ),
    "count_returns": (
        "How many return statements does this function contain? Answer with a number.",
        "Count the return statements in the following code.",
        "Give the number of return statements in this Python function.",
    ),
    "function_kind": (
        "Is this a generator, a coroutine or a regular function?",
        "Classify the function as one of: generator, coroutine, regular.",
        "Which kind of Python function is this: generator, coroutine or regular?",
    ),
    "exception_base": (
        "Which class does this exception inherit from directly?",
        "Name the direct base class of the following Python exception.",
        "What is the parent class of this exception?",
    ),
    "explain_language": (
        "What does {subject} mean in Python? Explain briefly.",
        "Explain {subject} in Python in a few sentences.",
        "I am learning Python. Tell me about {subject}.",
    ),
}


def write_records(path: Path, records: list[Record]) -> None:
    """Write the records as JSON lines, whole or not at all."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def build_records() -> list[Record]:
    """The records of all tasks, in the order of the standard library's modules."""
    with paused_collector():  # syntax trees stay to the end too: the collector would look at them again and again
        return _build_records()


def _build_records() -> list[Record]:
    modules = read_modules()
    classes = read_classes(modules)
    functions = read_functions(modules)
    homes = find_homes(modules)
    explanations = read_explanations()
    ambiguous = _ambiguous_names(functions, classes)
    found = [
        *_records_of_functions(functions, homes, ambiguous),
        *_records_of_classes(classes, homes, ambiguous),
        *(_record("explain_language", item.subject, ("", item.text), _subject(item)) for item in explanations),
    ]
    short = [record for record in found if len("".join(record.values())) <= MAX_CHARS]
    # The same question with two answers would teach neither; the first one stays.
    return list({_question(record): record for record in reversed(short)}.values())[::-1]


def _question(record: Record) -> tuple[str, str]:
    return record["task"], record["input"] or record["instruction"]


def _record(task: str, key: str, answer: tuple[str, str], subject: str = "") -> Record:
    phrasings = PHRASINGS[task]
    phrasing = phrasings[derive_seed(0, "phrasing", task, key) % len(phrasings)]
    given, output = answer
    return {"instruction": phrasing.format(subject=subject), "input": given, "output": output, "task": task}


def _subject(item: Explanation) -> str:
    """The subject as it appears in a sentence."""
    return f'"{item.subject.removeprefix("The ")}"' if item.kind == "topic" else f"the {item.kind} {item.subject}"


def _ambiguous_names(functions: list[LibraryFunction], classes: list[LibraryClass]) -> set[str]:
    names = [function.node.name for function in functions if function.class_name is None]
    return {name for name, num in Counter(names + [item.name for item in classes]).items() if num > 1}


def _records_of_functions(
    functions: list[LibraryFunction], homes: Mapping[str, str], ambiguous: set[str]
) -> Iterator[Record]:
    for function in functions:
        task = _task_of(function)
        if task == "which_module" and function.class_name is None and function.node.name not in ambiguous:
            answer = _which_module(function.module, function.node.name, function.signature, function.summary, homes)
        else:
            answer = _BUILDERS[task](function) if task in _BUILDERS else None
        if answer:
            yield _record(task, function.key, answer)


def _records_of_classes(classes: list[LibraryClass], homes: Mapping[str, str], ambiguous: set[str]) -> Iterator[Record]:
    for item in classes:
        key = f"{item.module}.{item.name}"
        if item.name[0].isupper() and len(item.bases) == 1 and re.search(r"(Error|Exception|Warning)$", item.bases[0]):
            names = {other.name for other in classes if other.module == item.module}
            base = f"{item.module}.{item.bases[0]}" if item.bases[0] in names else item.bases[0]
            yield _record("exception_base", key, (f"{key}\n{item.summary}".strip(), base))
        elif item.name not in ambiguous:
            answer = _which_module(item.module, item.name, f"class {item.name}:", item.summary, homes)
            if answer:
                yield _record("which_module", key, answer)


# Percent of the functions with and without a usable docstring; no task asks about the rest.
_SHARES_WITH_SUMMARY = {
    "docstring_from_code": 54,
    "name_function": 16,
    "code_from_docstring": 18,
    "which_module": 12,
}
_SHARES_WITHOUT = {"list_parameters": 16, "default_value": 14, "count_returns": 9, "function_kind": 2}


def _task_of(function: LibraryFunction) -> str:
    if not function.summary and _kind(function) != "regular":
        # They are rare: drawing them like the others would leave a task with one answer.
        return "function_kind"
    # Many classes have the same method with the same description: such methods have the same task.
    draw = derive_seed(0, "task", function.node.name, function.summary or function.key) % 100
    for task, share in (_SHARES_WITH_SUMMARY if function.summary else _SHARES_WITHOUT).items():
        if draw < share:
            return task
        draw -= share
    return ""


def _docstring_from_code(function: LibraryFunction) -> Answer:
    return (function.code, function.summary) if function.code.count("\n") >= 2 else None


def _code_from_docstring(function: LibraryFunction) -> Answer:
    # A private name cannot be guessed from the docstring.
    names = {node.attr for node in ast.walk(function.node) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(function.node) if isinstance(node, ast.Name)}
    is_private = any(name.startswith("_") and not name.endswith("__") for name in names)
    if is_private or function.code.count("\n") > 14:
        return None
    return f'{function.signature}\n    """{function.summary}"""', function.code


def _name_function(function: LibraryFunction) -> Answer:
    name, summary = function.node.name, function.summary
    words = [word.lower()[:4] for word in re.findall(r"[A-Z]?[a-z]{3,}", name)]
    is_guessable = any(word in summary.lower() for word in words)
    if name.startswith("_") or not is_guessable or (name in summary and not re.fullmatch(r"[a-z]+", name)):
        return None
    return f"{summary}\nParameters: {', '.join(parameter_names(function.node)) or 'none'}", name


def _which_module(module: str, name: str, head: str, summary: str, homes: Mapping[str, str]) -> Answer:
    if name.startswith("_") or not summary:
        return None
    while f"{module}.{name}" in homes:
        module = homes[f"{module}.{name}"]
    return f'{head}\n    """{summary}"""', module


def parameter_names(node: FunctionNode) -> list[str]:
    """The names of all parameters in the order of the source."""
    given = node.args
    in_order = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [argument.arg for argument in in_order if argument is not None]


def _list_parameters(function: LibraryFunction) -> Answer:
    names = parameter_names(function.node)
    return (function.signature, json.dumps(names)) if len(names) >= 3 else None


def _default_value(function: LibraryFunction) -> Answer:
    arguments = function.node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    num_required = len(positional) - len(arguments.defaults)
    pairs = [
        *zip(positional[num_required:], arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    given = [(argument.arg, ast.unparse(default)) for argument, default in pairs if default is not None]
    if not given:
        return None
    name, default = given[derive_seed(0, "parameter", function.key) % len(given)]
    return f"{function.signature}\nParameter: {name}", default


def _count_returns(function: LibraryFunction) -> Answer:
    num_returns = sum(isinstance(node, ast.Return) for node in _own_nodes(function.node))
    # Without a branch the answer is nearly always 0 or 1.
    has_branch = any(isinstance(node, ast.If | ast.Try) for node in _own_nodes(function.node))
    return (function.code, str(num_returns)) if has_branch and len(function.code) <= 700 else None


def _function_kind(function: LibraryFunction) -> Answer:
    is_fitting = function.code.count("\n") >= 2 and len(function.code) <= 700
    return (function.code, _kind(function)) if is_fitting else None


def _kind(function: LibraryFunction) -> str:
    if isinstance(function.node, ast.AsyncFunctionDef):
        return "coroutine"
    # Most functions do not even hold the word.
    yields = "yield" in function.code and any(
        isinstance(child, ast.Yield | ast.YieldFrom) for child in _own_nodes(function.node)
    )
    return "generator" if yields else "regular"


_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that do not belong to a function inside it, in any order."""
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        child = waiting.pop()
        if not isinstance(child, _INNER):
            yield child
            waiting.extend(ast.iter_child_nodes(child))


_BUILDERS: Mapping[str, Callable[[LibraryFunction], Answer]] = {
    "docstring_from_code": _docstring_from_code,
    "code_from_docstring": _code_from_docstring,
    "name_function": _name_function,
    "list_parameters": _list_parameters,
    "default_value": _default_value,
    "count_returns": _count_returns,
    "function_kind": _function_kind,
}
