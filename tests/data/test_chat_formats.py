"""Messages and ShareGPT: the turns keep their words and order, and tools are read in every spelling."""

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.formats.formatting import format_record
from sft.errors import RecordError
from sft.schema import Message, ToolCall
from tests.data.records import CALL, TOOL, VALID, formatted, reason, record, source

USER, ANSWER, SYSTEM, TOOL_TURN = ({"role": r, "content": "x"} for r in ("user", "assistant", "system", "tool"))
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
CALLS = (ToolCall("rain", {"place": "Oslo"}, "c1"),)


def messages(*turns, **fields):
    return formatted("messages", {"messages": list(turns), **fields})[0].messages


def refusal(*turns, **fields):
    return reason("messages", {"messages": list(turns), **fields})


# The rules of sft.data.formats.turns, once more, as one expression over the letters of the turns.
CHAIN = "(?:ct+)*[ac]"
ALLOWED = re.compile(f"s?(?:{CHAIN})?(?:u{CHAIN})+")


def test_exactly_the_orders_that_make_a_conversation_are_taken():
    turns = {"s": SYSTEM, "u": USER, "a": ANSWER, "c": CALLING, "t": TOOL_TURN}
    config = source("messages")
    for length in range(6):
        for letters in itertools.product(turns, repeat=length):
            try:
                format_record(record(messages=[turns[letter] for letter in letters]), config)
                taken = True
            except RecordError:
                taken = False
            assert taken == bool(ALLOWED.fullmatch("".join(letters))), letters


@pytest.mark.parametrize("length", range(6))
def test_repair_joins_user_turns_and_cuts_those_at_the_end_and_does_nothing_else(length):
    turns = {"s": SYSTEM, "u": USER, "a": ANSWER, "c": CALLING, "t": TOOL_TURN}
    for letters in map("".join, itertools.product(turns, repeat=length)):
        numbered = [{**turns[letter], "content": f"{letter}{i}"} for i, letter in enumerate(letters)]
        fields = {"messages": numbered}
        in_order = re.sub("u+$", "", re.sub("u+", "u", letters))
        if not ALLOWED.fullmatch(in_order):
            assert reason("messages", fields, turns="repair")
            continue
        (made,) = formatted("messages", fields, turns="repair")
        assert made.is_repaired == (in_order != letters)
        # A run of user turns is one; what is behind the last answer is gone.
        runs = re.findall("u+|[^u]", letters)[: len(in_order)]
        contents = iter(turn["content"] for turn in numbered)
        expected = ["\n\n".join(itertools.islice(contents, len(run))) for run in runs]
        assert [message.content for message in made.messages] == expected
        assert [message.role[0] for message in made.messages] == list(in_order.replace("c", "a"))


def test_conversations_of_every_kind_are_repaired():
    human, bot = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
    expected = (Message("user", "q\n\nq"), Message("assistant", "a"))
    made = formatted("sharegpt", {"conversations": [human, human, bot, human]}, turns="repair")[0]
    assert (made.messages, made.is_repaired) == (expected, True)
    asked, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    fields = {"prompt": [asked, asked], "completion": [answer, asked]}
    assert formatted("prompt_completion", fields, turns="repair")[0].messages == expected
    assert "behind a user turn" in reason("prompt_completion", fields)
    for nothing_left in ([], [human], [human, human]):
        assert reason("sharegpt", {"conversations": nothing_left}, turns="repair")


def test_a_prompt_and_a_completion_of_messages_are_one_conversation():
    """As TRL's conversational format has them: what is asked, with earlier answers that are context, and the answer."""
    prompt = [SYSTEM, USER, {"role": "assistant", "content": "before"}, {"role": "user", "content": "again"}]
    fields = {"prompt": prompt, "completion": [CALLING, TOOL_TURN, ANSWER], "tools": json.dumps([TOOL])}
    (made,) = formatted("prompt_completion", fields)
    assert [(m.role, m.train) for m in made.messages if m.role == "assistant"] == [
        ("assistant", False),
        ("assistant", True),
        ("assistant", True),
    ]
    (same,) = formatted("messages", {"messages": prompt + fields["completion"], "tools": [TOOL]})
    assert [(m.role, m.content, m.tool_calls) for m in made.messages] == [
        (m.role, m.content, m.tool_calls) for m in same.messages
    ]
    assert made.tools == same.tools
    # One of the two may be a text.
    pair = (Message("user", "q"), Message("assistant", "x"))
    assert formatted("prompt_completion", {"prompt": "q", "completion": [ANSWER]})[0].messages == pair
    assert formatted("prompt_completion", {"prompt": [{**USER, "content": "q"}], "completion": "x"})[0].messages == pair
    assert reason("prompt_completion", {"prompt": [USER], "completion": []}) == "the field 'completion' holds no answer"
    assert "a user turn" in reason("prompt_completion", {"prompt": [USER], "completion": [USER, ANSWER]})
    assert "is null, not a list" in reason("prompt_completion", {"prompt": [USER], "completion": None}).replace(
        "holds", "is"
    )


def test_turns_may_be_written_as_json_in_a_text():
    """As in a cell of a CSV file, which holds no lists."""
    for form, column in (("messages", "messages"), ("sharegpt", "conversations")):
        fields = VALID[form]
        assert formatted(form, fields | {column: json.dumps(fields[column])}) == formatted(form, fields)
    assert reason("messages", {"messages": "[{"}).startswith("the field 'messages' cannot be read as JSON: ")
    twice = '[{"role": "user", "role": "assistant", "content": "a"}]'
    assert "the key 'role' stands twice in an object" in reason("messages", {"messages": twice})


def test_a_prompt_and_a_completion_of_messages_may_both_be_json_in_a_text():
    fields = {"prompt": [SYSTEM, USER], "completion": [CALLING, TOOL_TURN, ANSWER], "tools": [TOOL]}
    as_text = {name: json.dumps(value) for name, value in fields.items()}
    assert formatted("prompt_completion", as_text) == formatted("prompt_completion", fields)


def test_a_single_text_about_messages_is_a_text():
    messages = json.dumps([USER])
    for fields in (
        {"prompt": messages, "completion": "x"},
        {"prompt": "q", "completion": messages},
        {"prompt": "[1]", "completion": "[2]"},
        {"prompt": messages, "completion": "[]"},
        {"prompt": messages, "completion": '[{"role": '},
    ):
        (made,) = formatted("prompt_completion", fields)
        assert [message.content for message in made.messages] == [fields["prompt"], fields["completion"]]


TEXT = st.text("ab \n<>é", max_size=6).filter(str.strip)
CALLS_OF = st.lists(
    st.tuples(TEXT, st.dictionaries(TEXT, st.integers() | TEXT | st.none(), max_size=2)), min_size=1, max_size=2
)
EXCHANGE = st.tuples(TEXT, st.lists(st.tuples(CALLS_OF, st.text("ab", max_size=3)), max_size=2), TEXT)


@given(TEXT | st.none(), st.lists(EXCHANGE, min_size=1, max_size=3), st.booleans())
def test_the_same_conversation_is_equal_in_every_format(system, exchanges, as_text):
    openai, sharegpt = [], []
    for question, calls_and_results, answer in exchanges:
        openai.append({"role": "user", "content": question})
        sharegpt.append({"from": "human", "value": question})
        for calls, result in calls_and_results:
            functions = [{"name": name, "arguments": arguments} for name, arguments in calls]
            written = [{**f, "arguments": json.dumps(f["arguments"])} if as_text else f for f in functions]
            openai.append({"role": "assistant", "tool_calls": [{"type": "function", "function": f} for f in written]})
            openai.append({"role": "tool", "content": result})
            if as_text:
                sharegpt.append({"from": "function_call", "value": json.dumps(functions)})
            else:
                sharegpt += [{"from": "function_call", "value": json.dumps(f)} for f in functions]
            sharegpt.append({"from": "observation", "value": result})
        openai.append({"role": "assistant", "content": answer})
        sharegpt.append({"from": "gpt", "value": answer})
    tools = [{"type": "function", "function": TOOL}]
    bare_tools = json.dumps([TOOL]) if as_text else [TOOL]
    first = [{"role": "developer", "content": system}] if system else []
    made = formatted("messages", {"messages": first + openai, "tools": tools})
    assert made == formatted("sharegpt", {"conversations": sharegpt, "system": system, "tools": bare_tools})
    first = [{"from": "system", "value": system}] if system else []
    assert made == formatted("sharegpt", {"conversations": first + sharegpt, "tools": bare_tools})
    if len(exchanges) == 1 and not exchanges[0][1]:
        question, _, answer = exchanges[0]
        (alone,) = formatted("messages", {"messages": openai, "system": system})
        assert [alone] == formatted("instruction", {"instruction": question, "output": answer, "system": system})
        assert [alone] == formatted("prompt_completion", {"prompt": question, "completion": answer, "system": system})


def test_messages_keep_their_order_and_words():
    system, user = {"role": "system", "content": ""}, {"role": "user", "content": " a "}
    assert messages(system, user, {"role": "assistant", "content": "b\n"}) == (
        *(Message("system", ""), Message("user", " a ")),
        Message("assistant", "b\n"),
    )


def test_calls_results_thinking_and_marks_are_read():
    (made,) = formatted("messages", VALID["messages"])
    assert made.messages == (
        Message("system", "Be brief."),
        Message("user", "Rain?"),
        Message("assistant", "", train=False, tool_calls=CALLS),
        Message("tool", "no", call_id="c1"),
        Message("assistant", "No.", thought="It says no."),
    )
    assert made.tools == ({"type": "function", "function": TOOL},)
    assert formatted("messages", {**VALID["messages"], "tools": [{"function": TOOL}]})[0].tools == made.tools
    assert messages({**USER, "tool_call_id": "c1"}, ANSWER)[0] == Message("user", "x")


def test_an_answer_that_begins_with_a_thought_has_it_as_its_thought():
    usual = {"role": "assistant", "content": "<think>\nIt says no.\n</think>\n\nNo."}
    (answer,) = messages(USER, usual)[1:]
    assert answer == Message("assistant", "No.", thought="It says no.")
    assert answer.full_text == usual["content"]
    for text in ("<think>no</think>No.", "<think>\n\n</think>\n\nNo.", "<think>\nno\n</think>\n\n ", "No. <think>\n"):
        assert messages(USER, {**usual, "content": text})[1:] == (Message("assistant", text),)


def test_a_function_call_of_old_is_a_call_and_its_role_a_tool():
    old = {"role": "assistant", "content": None, "function_call": {"name": "rain", "arguments": "{}"}}
    result = {"role": "function", "name": "rain", "content": ""}
    made = messages(USER, old, result, ANSWER)
    assert made[1:3] == (Message("assistant", "", tool_calls=(ToolCall("rain", {}),)), Message("tool", ""))


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert messages({"role": "user", "content": parts}, ANSWER)[0] == Message("user", "a b")


def test_keys_that_a_table_fills_with_null_are_absent():
    nothing = dict.fromkeys(
        ["tool_calls", "function_call", "reasoning_content", "train", "weight", "tool_call_id", "name"]
    )
    assert messages({**USER, **nothing}, {**ANSWER, **nothing}, tools=None) == messages(USER, ANSWER)


@pytest.mark.parametrize(
    ("mark", "learned"),
    [({"train": False}, False), ({"train": True}, True), ({"weight": 0}, False), ({"weight": 1.0}, True), ({}, True)],
)
def test_an_answer_can_be_marked_not_to_be_learned(mark, learned):
    assert messages(USER, {**ANSWER, **mark}, USER, ANSWER)[1].train is learned
    shared = [{"from": "human", "value": "a", "weight": 0.0}, {"from": "gpt", "value": "b", **mark}]
    (made,) = formatted("sharegpt", {"conversations": shared * 2 + [shared[0], {"from": "gpt", "value": "c"}]})
    assert [m.train for m in made.messages] == [True, learned, True, learned, True, True]


def test_sharegpt_joins_an_answer_and_its_calls():
    call = {"from": "function_call", "value": '{"name": "rain", "arguments": "{}"}'}
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "I look."}, call, call]
    (made,) = formatted("sharegpt", {"conversations": turns})
    assert made.messages[1] == Message("assistant", "I look.", tool_calls=(ToolCall("rain", {}),) * 2)
    marked = [*turns[:3], {**call, "train": False}]
    expected = "message 4 is an assistant turn behind an assistant turn; needed there: a user turn"
    assert reason("sharegpt", {"conversations": marked}) == expected


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "the conversation does not end in an answer"),
        ([USER], "the conversation does not end in an answer"),
        ([USER, ANSWER, USER], "the conversation does not end in an answer"),
        ([ANSWER], "the conversation has no user turn"),
        ([SYSTEM, ANSWER], "the conversation has no user turn"),
        ([USER, SYSTEM, ANSWER], "message 2 is a system turn; only the first may be one"),
        ([USER, USER, ANSWER], "message 2 is a user turn behind a user turn; needed there: an assistant turn"),
        ([USER, ANSWER, ANSWER], "message 3 is an assistant turn behind an assistant turn; needed there: a user turn"),
        (
            [USER, CALLING, TOOL_TURN, USER],
            "message 4 is a user turn behind a tool turn; needed there: a tool turn or an assistant turn",
        ),
        ([USER, ANSWER, TOOL_TURN], "message 3 is a tool turn, but no call is before it"),
        ([USER, {**ANSWER, "content": "\n"}], "the answer in message 2 is empty"),
        ([{**USER, "content": ""}, ANSWER], "the prompt in message 1 is empty"),
        ([USER, {**ANSWER, "content": "", "reasoning_content": "Hm."}], "the answer in message 2 is empty"),
        (
            [USER, {**ANSWER, "role": "gpt"}],
            "message 2 has the role 'gpt'; known: system, developer, user, assistant, tool, function",
        ),
        (
            [{"from": "human"}],
            "message 1 has no 'role'; needed: one of system, developer, user, assistant, tool, function",
        ),
        ([USER, {**ANSWER, "content": None}], "the content of message 2 holds null, not text"),
        ([USER, "x"], "message 2 is text, not an object"),
        (
            [{**USER, "content": [{"type": "image_url"}]}, ANSWER],
            "part 1 of the content of message 1 is of the type 'image_url'; only text can be used",
        ),
        ([USER, {**ANSWER, "train": 1}], "message 2 has a number as its 'train'; needed: true or false"),
        ([USER, {**ANSWER, "weight": 0.5}], "message 2 has 0.5 as its 'weight'; needed: 0 or 1"),
        ([USER, {**ANSWER, "train": True, "weight": 0}], "message 2 has both 'train' and 'weight', and they differ"),
        ([{**USER, "train": True}, ANSWER], "message 1 is a user turn that is marked to be learned; only answers are"),
        ([{**USER, "weight": 1}, ANSWER], "message 1 is a user turn that is marked to be learned; only answers are"),
        ([USER, {**ANSWER, "train": False}], "no answer of the conversation is to be learned: all are marked"),
        (
            [{**USER, "reasoning_content": "Hm."}, ANSWER],
            "message 1 is a user turn with reasoning_content; only an assistant turn may have it",
        ),
    ],
)
def test_turns_that_are_no_conversation_are_named(turns, expected):
    assert refusal(*turns) == expected


def test_a_field_that_is_no_list_of_turns_is_named():
    assert reason("messages", {"messages": "x"}) == "the field 'messages' holds text, not a list of messages"
    assert reason("sharegpt", {}) == "the field 'conversations' is missing"


def test_two_system_texts_are_refused_unless_they_are_equal():
    assert messages(SYSTEM, USER, ANSWER, system="x") == messages(SYSTEM, USER, ANSWER)
    expected = "the field 'system' and message 1 hold two different system texts"
    assert refusal(SYSTEM, USER, ANSWER, system="y") == expected


def calling(**function):
    return {"role": "assistant", "tool_calls": [{"function": function}]}


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "assistant", "tool_calls": "x"}, "the tool_calls of message 2 are text, not a list"),
        ({"role": "assistant", "tool_calls": []}, "the content of message 2 holds null, not text"),
        ({**CALLING, "tool_calls": ["x"]}, "call 1 in message 2 is text, not an object with name and arguments"),
        (calling(arguments="{}"), "call 1 in message 2 has no name"),
        (calling(name=" "), "the name of call 1 in message 2 is empty"),
        (calling(name="f", arguments="[1]"), "the arguments of call 1 in message 2 are a list, not an object"),
        (calling(name="f", arguments={"x": float("nan")}), "call 1 in message 2 holds nan, which is not a JSON number"),
        ({**CALLING, "function_call": {"name": "f"}}, "message 2 has both tool_calls and function_call"),
        ({**CALLING, "role": "user"}, "message 2 is a user turn that calls a tool; only an assistant turn may"),
    ],
)
def test_a_call_that_cannot_be_read_is_named(turn, expected):
    assert refusal(USER, turn) == expected


def test_broken_json_is_named_with_its_place():
    assert refusal(USER, calling(name="f", arguments='{"a": ')) == (
        "call 1 in message 2 cannot be read as JSON: Expecting value: line 1 column 7 (char 6)"
    )
    deep = "[" * 5000 + "]" * 5000
    assert refusal(USER, ANSWER, tools=deep).startswith("the field 'tools' ")
    assert refusal(USER, ANSWER, tools=json.loads(deep[4800:5200])) == "the field 'tools' is nested too deep"


@pytest.mark.parametrize("nothing", [None, "", [], "[]"])
def test_no_tools_are_no_tools(nothing):
    assert formatted("messages", {"messages": [USER, ANSWER], "tools": nothing})[0].tools == ()


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (7, "the field 'tools' holds a number, not a list of tools"),
        ('{"name": "f"}', "the field 'tools' holds an object, not a list of tools"),
        (["f"], "tool 1 in the field 'tools' is text, not an object"),
        ([TOOL, {}], "tool 2 in the field 'tools' has no name"),
        ([{"type": "a", "function": TOOL}], "tool 1 in the field 'tools' is of the type 'a'; known: 'function'"),
    ],
)
def test_tools_that_cannot_be_read_are_named(tools, expected):
    assert refusal(USER, ANSWER, tools=tools) == expected


@pytest.mark.parametrize("value", ["[]", '"x"', "3", "null"])
def test_a_function_call_that_holds_no_call_is_refused(value):
    turns = [{"from": "human", "value": "a"}, {"from": "function_call", "value": value}]
    assert "not a call with name and arguments" in reason("sharegpt", {"conversations": turns})
