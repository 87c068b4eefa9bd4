"""Formatting is total or counted: a record becomes a conversation, or raises the reason why it does not."""

import copy
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.formats.formatting import expand_record, format_record
from sft.errors import RecordError
from sft.schema import Message, RecordLocation, TokenizedRecord
from tests.data.records import VALID, formatted, reason, record, source

WORDS = ["user", "assistant", "tool", "human", "gpt", "function_call", "role", "content", "from", "value", "text", "{}"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS)
    | st.text("\x00\ud83d a\n", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
TASKS = st.sampled_from([None, "t", {"column": "task"}, {"column": "Categories"}])

# u user, a answer, c answer with calls, t tool, s system
CHAIN = "(?:ct+)*[ac]"
CONVERSATION = re.compile(f"s?(?:{CHAIN})?(?:u{CHAIN})+")


def letters(messages):
    return "".join("c" if m.tool_calls else m.role[0] for m in messages)


def check_made_or_refused(fields, form, task):
    config = source(form, task=task)
    for made_of in expand_record(record(**fields), config):
        try:
            made = format_record(made_of, config)
        except RecordError as error:
            str(error).encode()  # it can be shown and written to a file
            continue
        assert isinstance(made.task, str)
        assert made.task.strip()
        assert (made.source, made.index, made.where) == ("s", 3, made_of.where)
        if isinstance(made, TokenizedRecord):
            assert made.example.loss_mask.any()
            assert (made.example.input_ids >= 0).all()
            continue
        assert CONVERSATION.fullmatch(letters(made.messages))
        assert any(m.train for m in made.messages if m.role == "assistant")
        assert all(m.content.strip() or m.tool_calls for m in made.messages if m.role in ("user", "assistant"))
        for message in made.messages:
            message.content.encode()


@pytest.mark.parametrize("form", VALID)
def test_any_record_becomes_a_conversation_that_ends_in_an_answer_or_a_reason(form):
    names = sorted({*VALID[form], "task", "Categories", "system", "tools"})

    @given(st.dictionaries(st.sampled_from(names), JSON), TASKS)
    def check(fields, task):
        check_made_or_refused(fields, form, task)

    check()


@pytest.mark.parametrize("form", VALID)
def test_any_damage_to_a_valid_record_is_survived_or_named(form):
    @given(st.data(), TASKS)
    def check(data, task):
        fields = copy.deepcopy(VALID[form])
        for _ in range(data.draw(st.integers(1, 2))):
            damage(fields, data)
        check_made_or_refused(fields, form, task)

    check()


def damage(fields, data):
    """Something, however deep, is replaced, taken away or doubled."""
    inside, places = [fields], []
    for value in inside:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        places += [(value, key) for key in keys]
        inside += [value[key] for key in keys if isinstance(value[key], dict | list)]
    if not places:
        return
    value, key = data.draw(st.sampled_from(places))
    how = data.draw(st.sampled_from(["replace", "delete", "double"]))
    if how == "replace":
        value[key] = data.draw(JSON)
    elif how == "delete":
        del value[key]
    elif isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))


@pytest.mark.parametrize("form", VALID)
def test_every_format_has_a_record_that_is_used(form):
    assert len(formatted(form, VALID[form])) == (2 if form == "super_natural_instructions" else 1)


def test_instruction_and_input_are_one_user_turn():
    fields = {"instruction": "Add.", "output": "3"}
    for extra, prompt in (("1 2", "Add.\n\n1 2"), ("", "Add."), ("  ", "Add."), (None, "Add.")):
        made = format_record(record(**fields, input=extra), source("instruction"))
        assert made.messages == (Message("user", prompt), Message("assistant", "3"))
    assert format_record(record(**fields), source("instruction")).messages[0].content == "Add."


def test_columns_are_mapped():
    made = format_record(record(q="a", a="b"), source("prompt_completion", columns={"prompt": "q", "completion": "a"}))
    assert made.messages == (Message("user", "a"), Message("assistant", "b"))


@pytest.mark.parametrize("form", ["instruction", "prompt_completion", "messages", "sharegpt"])
def test_a_system_column_is_the_first_turn_unless_it_is_blank(form):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    fields = {
        "instruction": {"instruction": "a", "output": "b"},
        "prompt_completion": {"prompt": "a", "completion": "b"},
        "messages": {"messages": turns},
        "sharegpt": {"conversations": [{"from": t["role"], "value": t["content"]} for t in turns]},
    }[form]
    (made,) = formatted(form, fields | {"rules": "Be brief."}, columns={"system": "rules"})
    assert made.messages == (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"))
    for nothing in ("", " ", None):
        (made,) = formatted(form, fields | {"system": nothing})
        assert made.messages == (Message("user", "a"), Message("assistant", "b"))


def test_the_task_is_a_name_a_column_or_the_sources_name():
    fields = {"prompt": "a", "completion": "b", "kind": "sums", "kinds": ["sums", "maths"], "none": []}

    def task(setting):
        return formatted("prompt_completion", fields, task=setting)[0].task

    assert [task(t) for t in (None, "x", {"column": "kind"}, {"column": "kinds"})] == ["s", "x", "sums", "sums"]
    untold = {"gone": "missing", "none": "empty", "blank": "empty", "null": "missing", "nan": "missing"}
    fields |= {"blank": " \n", "null": None, "nan": math.nan}
    for column, state in untold.items():
        assert reason("prompt_completion", fields, task={"column": column}) == (
            f"the field {column!r}, which names the task, is {state}; `default` of `task` is not given"
        )
        assert task({"column": column, "default": "other"}) == "other"
    assert task({"column": "kind", "default": "other"}) == "sums"


@pytest.mark.parametrize(
    ("value", "expected"), [(1, "1"), (1.0, "1"), ("1", "1"), (0, "0"), (-7.0, "-7"), ([2, 3], "2"), ("1.0", "1.0")]
)
def test_a_whole_number_names_a_task_by_its_digits(value, expected):
    fields = {"prompt": "a", "completion": "b", "label": value}
    assert formatted("prompt_completion", fields, task={"column": "label"})[0].task == expected


@pytest.mark.parametrize(
    ("value", "kind"), [(1.5, "a number"), (math.inf, "a number"), (True, "a boolean"), ({}, "an object")]
)
def test_what_is_neither_text_nor_a_whole_number_names_no_task(value, kind):
    fields = {"prompt": "a", "completion": "b", "label": value}
    assert reason("prompt_completion", fields, task={"column": "label"}) == f"the field 'label' holds {kind}, not text"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"instruction": "a"}, "the field 'output' is missing"),
        ({"instruction": "a", "output": ""}, "the field 'output' is empty"),
        ({"instruction": "a", "output": " \n"}, "the field 'output' is empty"),
        ({"instruction": "a", "output": 42}, "the field 'output' holds a number, not text"),
        ({"instruction": "a", "output": True}, "the field 'output' holds a boolean, not text"),
        ({"instruction": "a", "output": float("nan")}, "the field 'output' holds NaN, not text"),
        ({"instruction": None, "output": "b"}, "the field 'instruction' holds null, not text"),
        ({"instruction": "a", "input": ["x"], "output": "b"}, "the field 'input' holds a list, not text"),
        ({"instruction": "a", "input": float("nan"), "output": "b"}, "the field 'input' holds NaN, not text"),
        ({"instruction": "a", "output": {}}, "the field 'output' holds an object, not text"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(fields, expected):
    assert reason("instruction", fields) == expected


FLAWS = {
    "cut \ud83d": "half of a surrogate pair at character 5: not text",
    "ab\x00c": "the control character U+0000 at character 3",
    "é\x7f": "the control character U+007F at character 2",
    "\x1b[0m": "the control character U+001B at character 1",
    "\x0b": "the control character U+000B at character 1",
}


@pytest.mark.parametrize("text", FLAWS)
def test_a_text_with_a_character_that_no_text_has_is_refused_wherever_it_is(text):
    asked, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": text}
    places = [
        ("instruction", {"instruction": text, "output": "b"}, "the field 'instruction'"),
        ("instruction", {"instruction": "a", "input": text, "output": "b"}, "the field 'input'"),
        ("prompt_completion", {"prompt": "a", "completion": text}, "the field 'completion'"),
        ("messages", {"messages": [asked, answer]}, "the content of message 2"),
        ("messages", {"messages": [asked, {**answer, "content": "b"}], "tools": [{"name": text}]}, "the field 'tools'"),
        ("sharegpt", {"conversations": [{"from": "human", "value": text}]}, "the value of message 1"),
        ("seed_tasks", {"instruction": "a", "instances": [{"input": "", "output": text}]}, "the field 'output'"),
    ]
    for form, fields, where in places:
        assert reason(form, fields) == f"{where} holds {FLAWS[text]}"
    fields = {"prompt": "a", "completion": "b", "kind": text}
    assert reason("prompt_completion", fields, task={"column": "kind"}) == f"the field 'kind' holds {FLAWS[text]}"


def test_every_character_is_text_but_the_control_characters_of_ascii_and_surrogates():
    refused = set()
    for code in (*range(0x400), *range(0xD700, 0xE100), 0xFFFD, 0x1F600, 0x10FFFF):
        try:
            formatted("prompt_completion", {"prompt": f"a{chr(code)}", "completion": "b"})
        except RecordError:
            refused.add(code)
    controls = set(range(0x20)) - {ord(c) for c in "\t\n\f\r"}
    assert refused == controls | {0x7F} | set(range(0xD800, 0xE000))


def test_a_task_file_is_a_record_for_each_instance_with_the_tasks_own_fields():
    made = formatted("super_natural_instructions", VALID["super_natural_instructions"], task={"column": "Categories"})
    assert [c.messages for c in made] == [
        (Message("user", "Add.\n\n1 2"), Message("assistant", "3")),
        (Message("user", "Add.\n\n4"), Message("assistant", "4")),
    ]
    assert {c.task for c in made} == {"Arithmetic"}
    assert [c.where for c in made] == [
        RecordLocation("s.jsonl", 4, instance=1),
        RecordLocation("s.jsonl", 4, instance=2),
    ]
    assert {c.index for c in made} == {3}


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        (None, "the field 'instances' holds null, not a list of instances"),
        ({}, "the field 'instances' holds an object, not a list of instances"),
        ([], "the field 'instances' holds no instances"),
        (["x"], "the instance is text, not an object with input and output"),
        ([{"input": "a"}], "the field 'output' is missing"),
        ([{"input": "a", "output": []}], "the field 'output' holds a list, not text"),
        ([{"input": "a", "output": [" "]}], "the field 'output' is empty"),
        ([{"input": 1, "output": "a"}], "the field 'input' holds a number, not text"),
    ],
)
def test_a_task_file_without_usable_instances_is_refused(instances, expected):
    assert reason("seed_tasks", {"instruction": "Add.", "instances": instances}) == expected


def test_one_bad_instance_leaves_the_others():
    instances = [{"input": "", "output": "a"}, 7, {"input": "", "output": "b"}]
    config = source("seed_tasks")
    good, bad, also_good = expand_record(record(instruction="Add.", instances=instances), config)
    assert [format_record(r, config).messages[-1].content for r in (good, also_good)] == ["a", "b"]
    with pytest.raises(RecordError, match="the instance is a number"):
        format_record(bad, config)
    assert str(bad.where) == "s.jsonl:4, instance 2"
