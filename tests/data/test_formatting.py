"""Formatting is total or counted: a record becomes a conversation, or raises the reason why it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import SourceConfig
from sft.data.formatting import RecordError, check_columns, format_record
from sft.errors import UserError
from sft.schema import Message, Record

ROLES = ["user", "assistant"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(ROLES),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def record(**fields):
    return Record("s", 3, "s.jsonl:4", fields)


def source(form, **settings):
    return SourceConfig(name="s", path="s.jsonl", format=form, **settings)


def reason(form, fields, **settings):
    with pytest.raises(RecordError) as error:
        format_record(record(**fields), source(form, **settings))
    return str(error.value)


@pytest.mark.parametrize("form", ["instruction", "prompt_completion", "messages"])
def test_any_record_becomes_a_conversation_that_ends_in_an_answer_or_a_reason(form):
    names = ["instruction", "input", "output", "prompt", "completion", "messages", "task"]

    @given(st.dictionaries(st.sampled_from(names), JSON), st.sampled_from([None, "t", {"column": "task"}]))
    def check(fields, task):
        try:
            made = format_record(record(**fields), source(form, task=task))
        except RecordError:
            return
        assert made.messages[-1].role == "assistant"
        assert all(m.content.strip() for m in made.messages if m.role == "assistant")
        assert any(m.role == "user" for m in made.messages)
        assert isinstance(made.task, str)
        assert (made.source, made.index, made.where) == ("s", 3, "s.jsonl:4")

    check()


def test_instruction_and_input_are_one_user_turn():
    fields = {"instruction": "Add.", "output": "3"}
    for extra, prompt in (("1 2", "Add.\n\n1 2"), ("", "Add."), ("  ", "Add."), (None, "Add.")):
        made = format_record(record(**fields, input=extra), source("instruction"))
        assert made.messages == (Message("user", prompt), Message("assistant", "3"))
    assert format_record(record(**fields), source("instruction")).messages[0].content == "Add."


def test_columns_are_mapped():
    made = format_record(record(q="a", a="b"), source("prompt_completion", columns={"prompt": "q", "completion": "a"}))
    assert made.messages == (Message("user", "a"), Message("assistant", "b"))


def test_the_task_is_a_name_a_column_or_the_sources_name():
    fields = {"prompt": "a", "completion": "b", "kind": "sums"}
    tasks = [
        format_record(record(**fields), source("prompt_completion", task=t)).task
        for t in (None, "x", {"column": "kind"})
    ]
    assert tasks == ["s", "x", "sums"]
    assert reason("prompt_completion", fields | {"kind": " "}, task={"column": "kind"}) == "the field 'kind' is empty"


def test_messages_keep_their_order_and_words():
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": " a "},
        {"role": "assistant", "content": "b\n"},
    ]
    made = format_record(record(messages=turns), source("messages"))
    assert made.messages == (Message("system", ""), Message("user", " a "), Message("assistant", "b\n"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"instruction": "a"}, "the field 'output' is missing"),
        ({"instruction": "a", "output": ""}, "the field 'output' is empty"),
        ({"instruction": "a", "output": " \n"}, "the field 'output' is empty"),
        ({"instruction": "a", "output": 42}, "the field 'output' holds a int, not text"),
        ({"instruction": None, "output": "b"}, "the field 'instruction' holds a NoneType, not text"),
        ({"instruction": "a", "input": ["x"], "output": "b"}, "the field 'input' holds a list, not text"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(fields, expected):
    assert reason("instruction", fields) == expected


USER, ANSWER, SYSTEM = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "the conversation does not end in an answer"),
        ([USER], "the conversation does not end in an answer"),
        ([USER, ANSWER, USER], "the conversation does not end in an answer"),
        ([ANSWER], "the conversation has no user turn"),
        ([SYSTEM, ANSWER], "the conversation has no user turn"),
        ([USER, SYSTEM, ANSWER], "message 2 is a system turn; only the first may be one"),
        ([USER, {"role": "assistant", "content": "\n"}], "the answer in message 2 is empty"),
        ([USER, {"role": "gpt", "content": "x"}], "message 2 has the role 'gpt'; known: system, user, assistant, tool"),
        ([USER, {"role": "assistant", "content": None}], "message 2 has a NoneType as its content, not text"),
        ([USER, "x"], "message 2 is a str, not an object with role and content"),
    ],
)
def test_turns_that_are_no_conversation_are_named(turns, expected):
    assert reason("messages", {"messages": turns}) == expected
    assert reason("messages", {"messages": "x"}) == "the field 'messages' holds a str, not a list of messages"


# JSON can spell half of a surrogate pair, mostly where a text was cut; no tokenizer can read it.
@pytest.mark.parametrize("form", ["instruction", "prompt_completion", "messages"])
def test_half_a_surrogate_pair_is_refused(form):
    half = "cut \ud83d"
    fields = {
        "instruction": {"instruction": half, "output": "b"},
        "prompt_completion": {"prompt": "a", "completion": half},
        "messages": {"messages": [USER, {"role": "assistant", "content": half}]},
    }[form]
    assert "half of a surrogate pair" in reason(form, fields)
    assert "half of a surrogate pair" in reason(form, fields | {"task": half}, task={"column": "task"})


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


def test_a_name_that_the_format_does_not_have_is_named():
    with pytest.raises(
        UserError, match=r"columns\.answer: the format instruction has no 'answer', only instruction, input, output"
    ):
        check_columns(source("instruction", columns={"answer": "output"}), record(instruction="a", output="b"))


def test_an_optional_column_may_be_absent():
    check_columns(source("instruction"), record(instruction="a", output="b"))
