"""A source's format is found where it is unambiguous, asked for where it is not, and checked where it is given."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sft.config import SourceConfig
from sft.data.formats.columns import COLUMNS
from sft.data.formats.formatting import check_columns, describe_source, resolve_source
from sft.errors import UserError
from sft.schema import Message
from tests.data.records import VALID, formatted, record, source

ROLES, FROM = [{"role": "user", "content": "a"}], [{"from": "human", "value": "a"}]


def resolved(fields, form="auto", **settings):
    found = resolve_source(source(form, **settings), record(**fields))
    return found.format, found.columns


def refusal(fields, form="auto", **settings):
    with pytest.raises(UserError) as error:
        resolve_source(source(form, **settings), record(**fields))
    return str(error.value)


@pytest.mark.parametrize("form", VALID)
def test_found_and_written_are_the_same(form):
    names = {name: name for name in VALID[form] if name in COLUMNS[form]}
    found = resolve_source(source(), record(**VALID[form]))
    assert found == resolve_source(source(form), record(**VALID[form]))
    assert found == resolve_source(source(form, columns=names), record(**VALID[form]))
    assert found == source(form)


QUESTION_AND_ANSWER = {"prompt": "question", "completion": "answer"}


@pytest.mark.parametrize(
    ("fields", "form", "columns"),
    [
        ("instruction context response category", "instruction", {"input": "context", "output": "response"}),
        ("instruction input output text", "instruction", {}),
        (
            "definition inputs targets id",
            "instruction",
            {"instruction": "definition", "input": "inputs", "output": "targets"},
        ),
        ("inputs targets _task_name", "prompt_completion", {"prompt": "inputs", "completion": "targets"}),
        ("question answer", "prompt_completion", QUESTION_AND_ANSWER),
        ("input target", "prompt_completion", {"prompt": "input", "completion": "target"}),
        ("query response type", "prompt_completion", {"prompt": "query", "completion": "response"}),
        ("problem solution level", "prompt_completion", {"prompt": "problem", "completion": "solution"}),
        ("system_prompt question answer", "prompt_completion", {**QUESTION_AND_ANSWER, "system": "system_prompt"}),
        (
            "Instruction Input Output",
            "instruction",
            {"instruction": "Instruction", "input": "Input", "output": "Output"},
        ),
        ("QUESTION Answer", "prompt_completion", {"prompt": "QUESTION", "completion": "Answer"}),
    ],
)
def test_known_names_are_found(fields, form, columns):
    fields = dict.fromkeys(fields.split(), "x")
    assert resolved(fields) == (form, columns)
    assert resolved(fields, form, columns=columns) == (form, columns)


def test_turns_are_told_apart_by_their_keys():
    assert resolved({"messages": ROLES}) == ("messages", {})
    assert resolved({"conversations": ROLES}) == ("messages", {"messages": "conversations"})
    assert resolved({"conversations": FROM, "tools": "[]"}) == ("sharegpt", {})
    assert resolved({"messages": FROM}) == ("sharegpt", {"conversations": "messages"})
    assert resolved({"prompt": "a", "messages": ROLES}) == ("messages", {})
    for undecided in ({"messages": []}, {"messages": [{**ROLES[0], **FROM[0]}]}):
        text = refusal(undecided)
        assert "format: messages" in text
        assert "format: sharegpt, columns: {conversations: messages}" in text


def test_turns_in_a_text_and_prompts_of_messages_are_found_too():
    assert resolved({"messages": json.dumps(ROLES)}) == ("messages", {})
    assert resolved({"messages": json.dumps(FROM)}) == ("sharegpt", {"conversations": "messages"})
    assert "fit no format" in refusal({"messages": "[", "other": "x"})
    assert resolved({"prompt": ROLES, "completion": ROLES, "tools": []}) == ("prompt_completion", {})


def test_what_is_given_is_kept_and_the_rest_found():
    fields = {"problem": "a", "solution": "b", "answer": "c"}
    assert resolved(fields, columns={"completion": "solution"}) == (
        "prompt_completion",
        {"prompt": "problem", "completion": "solution"},
    )
    text_and_code = {"prompt": "text", "completion": "code"}
    assert resolved({"text": "a", "code": "b"}, columns=text_and_code) == ("prompt_completion", text_and_code)
    assert resolved({"context": "a", "response": "b"}, columns={"instruction": "context"}) == (
        "instruction",
        {"instruction": "context", "output": "response"},
    )
    turned = {"instruction": "context", "input": "instruction", "output": "response"}
    assert resolved({"instruction": "a", "context": "b", "response": "c"}, columns=turned) == ("instruction", turned)


PAIRS = "format: prompt_completion, columns: "


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        (
            {"instruction": "a", "response": "b", "conversations": FROM},
            ["format: instruction, columns: {output: response}", "format: sharegpt"],
        ),
        (
            {"problem": "a", "solution": "b", "answer": "c"},
            [
                PAIRS + "{prompt: problem, completion: answer}   (leaves out solution)",
                PAIRS + "{prompt: problem, completion: solution}   (leaves out answer)",
            ],
        ),
        (
            {"question": "a", "context": "b", "answer": "c"},
            [PAIRS + "{prompt: question, completion: answer}   (leaves out context)"],
        ),
        (
            {"messages": ROLES, "question": "a", "context": "b", "answer": "c"},
            [PAIRS + "{prompt: question, completion: answer}   (leaves out context)", "format: messages"],
        ),
        (
            {"input_ids": [1], "labels": [1], "prompt": "a", "completion": "b"},
            ["format: prompt_completion", "format: tokens"],
        ),
    ],
)
def test_what_fits_in_several_ways_is_asked_with_the_lines_to_write(fields, lines):
    first, *offered = refusal(fields).splitlines()
    assert first.startswith(f"source s: s.jsonl:4: it is unclear how the columns {', '.join(fields)} are meant.")
    assert [line.strip() for line in offered] == lines
    for line in lines:
        written = yaml.safe_load("{" + line.partition("   ")[0] + "}")
        assert resolved(fields, written["format"], columns=written.get("columns", {}))[0] == written["format"]


def test_what_fits_no_format_is_asked_with_an_example():
    text = refusal({"id": 1, "text": "a", "code": "b"})
    assert "the columns id, text, code fit no format" in text
    assert "seed_tasks (instruction, instances)" in text
    assert text.endswith("format: prompt_completion, columns: {prompt: text, completion: code}")
    assert "no format has 'answer'" in refusal({"prompt": "a", "completion": "b"}, columns={"answer": "completion"})
    for fields in ({}, {"conversations": ["a", "b"]}, {"input_ids": [1, 2]}):
        assert "fit no format" in refusal(fields)


NAMES = sorted({n for known in COLUMNS.values() for name, c in known.items() for n in (name, *c.aliases)} | {"x"})
VALUES = st.sampled_from(["a", None, 1, [], ROLES, FROM, ["a"], [1]])


@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=2),
    st.sampled_from(["auto", *COLUMNS]),
)
def test_any_columns_are_resolved_once_and_for_all_or_refused(fields, columns, form):
    given_source = SourceConfig(name="s", path="p", format=form, columns=columns)
    try:
        found = resolve_source(given_source, record(**fields))
    except UserError:
        return
    assert found.format != "auto"
    assert all(name != column for name, column in found.columns.items())
    assert set(found.columns.values()) <= set(fields)
    assert resolve_source(found, record(**fields)) == found
    assert all(found.columns.get(name, name) == column for name, column in columns.items())


def test_missing_columns_are_all_named_with_those_that_are_there():
    with pytest.raises(UserError) as error:
        check_columns(
            source("instruction", columns={"input": "context"}, task={"column": "kind"}), record(q="a", output="b")
        )
    text = str(error.value)
    assert text.startswith("source s: s.jsonl:4: ")
    for part in ("no column 'instruction'", "no column 'context' (for input)", "no column 'kind' (for task)"):
        assert part in text
    assert "'output'" not in text
    assert "The columns there: q, output. Map them, such as columns: {instruction: q}." in text


def test_other_names_that_are_known_are_proposed():
    fields = {"instruction": "a", "context": "b", "response": "c"}
    assert refusal(fields, "instruction").endswith("such as columns: {input: context, output: response}.")


def test_a_row_of_tokens_needs_to_say_what_is_learned():
    assert "neither a column 'labels' nor 'loss_mask'" in refusal({"input_ids": [1, 2]}, "tokens")


def test_a_name_that_the_format_does_not_have_is_named():
    with pytest.raises(
        UserError, match=r"columns\.answer: the format instruction has no 'answer', only instruction, input, output"
    ):
        check_columns(source("instruction", columns={"answer": "output"}), record(instruction="a", output="b"))


def test_a_column_is_read_only_once():
    columns = {"prompt": "completion"}
    assert "the column 'completion' is read as prompt and as completion" in refusal(
        {"prompt": "a", "completion": "b"}, "prompt_completion", columns=columns
    )
    fields, columns = {"input": "a", "output": "b"}, {"instruction": "input"}
    assert resolved(fields, "instruction", columns=columns) == ("instruction", columns)
    (made,) = formatted("instruction", fields, columns=columns)
    assert made.messages[0] == Message("user", "a")


def test_an_optional_column_may_be_absent():
    check_columns(source("instruction"), record(instruction="a", output="b"))


def test_what_was_found_is_said_in_one_line():
    found = resolve_source(source(), record(instruction="a", context="b", response="c"))
    assert describe_source(found) == "format instruction (input ← context, output ← response)"
    assert describe_source(source("messages")) == "format messages"


def test_two_columns_that_differ_in_capitals_alone_are_asked_about():
    said = refusal({"instruction": "a", "Input": "b", "input": "c", "output": "d"})
    assert "it is unclear how the columns instruction, Input, input, output are meant" in said
    assert "format: instruction\n" in f"{said}\n"
    assert "format: instruction, columns: {input: Input}" in said
    found = {"instruction": "a", "Input": "b", "input": "c", "output": "d"}
    assert resolved(found, "instruction") == ("instruction", {}), "what is written is not asked about"


def test_messages_in_capitals_are_found_too():
    assert resolved({"Messages": ROLES}) == ("messages", {"messages": "Messages"})
