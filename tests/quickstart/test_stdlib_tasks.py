"""The records made from the standard library: the same each time, uneven, right where that can be checked."""

import ast
import importlib.util
import json
import keyword
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sft.quickstart.stdlib_sources import LibraryModule, find_homes
from sft.quickstart.stdlib_tasks import MAX_CHARS, PHRASINGS, Record, build_records, write_records

FEWER = [name for name in sorted(sys.stdlib_module_names) if "c" <= name[0] <= "h"]
"""Modules for what needs not all of them: to read all takes seconds."""


@pytest.fixture(scope="module")
def records() -> list[Record]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdlib_module_names", frozenset(FEWER))
        return build_records()


def outputs_of(records: list[Record], task: str) -> list[tuple[str, str]]:
    pairs = [(record["input"], record["output"]) for record in records if record["task"] == task]
    assert pairs
    return pairs


def parse_function(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


def names_by_inspection(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    found = [child for child in ast.walk(node.args) if isinstance(child, ast.arg)]
    return [name for _, _, name in sorted((item.lineno, item.col_offset, item.arg) for item in found)]


def test_another_process_with_other_string_hashes_builds_the_same_records(records: list[Record]) -> None:
    script = (
        f"import json, sys; sys.stdlib_module_names = frozenset({FEWER}); import sft.quickstart.stdlib_tasks as tasks"
    )
    script += "; json.dump(tasks.build_records(), sys.stdout)"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    built = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    assert json.loads(built.stdout) == records
    assert len(records) > 300


@pytest.mark.long
def test_of_all_modules_there_are_enough_records_and_tasks_and_they_are_uneven() -> None:
    records = build_records()
    sizes = Counter(record["task"] for record in records)
    assert len(records) >= 2000
    assert set(sizes) == set(PHRASINGS)
    assert max(sizes.values()) >= 5 * min(sizes.values())
    assert min(sizes.values()) >= 50


def test_every_record_is_complete_stripped_and_short(records: list[Record]) -> None:
    for record in records:
        assert list(record) == ["instruction", "input", "output", "task"]
        assert record["instruction"]
        assert record["output"]
        assert all(text == text.strip() for text in record.values())
        assert len("".join(record.values())) <= MAX_CHARS


def test_no_question_is_asked_twice(records: list[Record]) -> None:
    questions = Counter((record["task"], record["input"] or record["instruction"]) for record in records)
    assert questions.most_common(1)[0][1] == 1


def test_every_phrasing_is_used(records: list[Record]) -> None:
    for task, phrasings in PHRASINGS.items():
        if task != "explain_language":
            assert {record["instruction"] for record in records if record["task"] == task} == set(phrasings)


def test_parameters_are_those_of_the_signature(records: list[Record]) -> None:
    for signature, output in outputs_of(records, "list_parameters"):
        assert json.loads(output) == names_by_inspection(parse_function(f"{signature} pass"))


def test_defaults_are_those_of_the_signature(records: list[Record]) -> None:
    for text, output in outputs_of(records, "default_value"):
        signature, name = text.rsplit("\nParameter: ", 1)
        arguments = parse_function(f"{signature} pass").args
        positional = [*arguments.posonlyargs, *arguments.args]
        names = [argument.arg for argument in reversed(positional)]
        defaults = dict(zip(names, reversed(arguments.defaults), strict=False))
        defaults |= {
            argument.arg: default
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is not None
        }
        assert ast.unparse(defaults[name]) == output


def test_modules_are_there_to_import(records: list[Record]) -> None:
    for module in {output for _, output in outputs_of(records, "which_module")}:
        assert importlib.util.find_spec(module) is not None


def test_written_functions_parse_and_have_the_signature_asked_for(records: list[Record]) -> None:
    for prompt, code in outputs_of(records, "code_from_docstring"):
        asked, written = parse_function(prompt), parse_function(code)
        assert (asked.name, ast.unparse(asked.args)) == (written.name, ast.unparse(written.args))
        assert ast.get_docstring(asked)
        assert ast.get_docstring(written) is None


def test_code_to_be_described_does_not_hold_its_description(records: list[Record]) -> None:
    for code, summary in outputs_of(records, "docstring_from_code"):
        assert ast.get_docstring(parse_function(code)) is None
        assert summary not in code


def test_kinds_and_counts_agree_with_the_code(records: list[Record]) -> None:
    for code, kind in outputs_of(records, "function_kind"):
        assert (kind == "coroutine") == isinstance(parse_function(code), ast.AsyncFunctionDef)
        assert kind != "generator" or "yield" in code
    for code, num_returns in outputs_of(records, "count_returns"):
        assert int(num_returns) <= code.count("return")


def test_names_can_be_used_as_names(records: list[Record]) -> None:
    for _, name in outputs_of(records, "name_function"):
        assert name.isidentifier()
        assert not keyword.iskeyword(name)


def test_functions_of_the_held_out_task_are_in_no_other(records: list[Record]) -> None:
    elsewhere = [r["input"] + r["output"] for r in records if r["task"] != "name_function"]
    for prompt, name in outputs_of(records, "name_function"):
        summary = prompt.rsplit("\nParameters: ", 1)[0]
        assert not any(summary in text and f"def {name}(" in text for text in elsewhere)


def test_a_package_is_the_home_of_what_it_passes_on() -> None:
    texts = {
        "box": "from .lid import *\nfrom .hook import *\nfrom .hinge import turn, squeak as noise",
        "box.lid": "def open(): ...\nclass Lid: ...\ndef _pry(): ...",
        "box.hinge": "def turn(): ...\ndef squeak(): ...",
        "box.hook": "__all__ = ('hang',)\ndef hang(): ...\ndef bend(): ...",
    }
    modules = [LibraryModule(name, (), ast.parse(text)) for name, text in texts.items()]
    assert set(find_homes(modules)) == {"box.lid.open", "box.lid.Lid", "box.hinge.turn", "box.hook.hang"}
    assert set(find_homes(modules).values()) == {"box"}


def test_written_lines_read_back(records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "data" / "stdlib.jsonl"
    write_records(path, records)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == records
    assert [entry.name for entry in path.parent.iterdir()] == ["stdlib.jsonl"]
