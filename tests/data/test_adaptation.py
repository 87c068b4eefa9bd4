"""What a template has no form for is said otherwise, and nothing of it is lost."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import ModelConfig
from sft.data.rendering.adaptation import TemplateTraits, adapt, derive_traits
from sft.data.rendering.chat_template import TemplateRenderer, load_tokenizer
from sft.errors import RecordError
from sft.schema import Message, ToolCall
from tests.data.conversations import TOOLS, conversation, conversations, tool_conversations, turns

NO_SYSTEM = TemplateTraits(has_system=False)
NO_TOOLS = TemplateTraits(has_tool_list=False, has_tool_calls=False)
ONE_CALL = TemplateTraits(has_parallel_calls=False, has_free_call_ids=False)
NOTHING = TemplateTraits(False, False, False, False, False)
TRAITS = st.builds(TemplateTraits, *[st.booleans()] * 5)

CALLS = (ToolCall("look_up", {"word": "río"}, "call_1"), ToolCall("count", {"limit": 3}, "call_2"))
RESULTS = (Message("tool", "three", call_id="call_2"), Message("tool", "a stream", call_id="call_1"))
ASKED = conversation(
    Message("user", "q"), Message("assistant", "I look.", tool_calls=CALLS), *RESULTS, Message("assistant", "a"),
    tools=TOOLS,
)  # fmt: skip


def contents(made):
    return [(m.role, m.content) for m in made.messages]


@pytest.mark.parametrize(
    ("template", "traits"),
    [
        ("chatml", NO_TOOLS),
        ("inst", NO_TOOLS),
        ("think", TemplateTraits()),
        ("headers_tools", TemplateTraits(has_parallel_calls=False)),
        ("mistral", TemplateTraits(has_system=False, has_free_call_ids=False)),
        ("model_role", TemplateTraits(has_system=False, has_tool_list=False, has_tool_calls=False)),
    ],
)
def test_what_a_template_has_is_found_out_by_rendering(tokenizer_dir, template, traits):
    tokenizer = load_tokenizer(ModelConfig(path=str(tokenizer_dir(template))))
    found = derive_traits(TemplateRenderer(tokenizer))
    assert (found.has_system, found.has_tool_list, found.has_tool_calls) == (
        *(traits.has_system, traits.has_tool_list, traits.has_tool_calls),
    )
    if traits.has_tool_calls:
        assert found == traits


@given(st.one_of(conversations(), tool_conversations()))
def test_a_conversation_that_the_template_can_write_stays_as_it_is(made):
    adapted, notes = adapt(made, TemplateTraits())
    assert adapted is made
    assert notes == ()


@given(st.one_of(conversations(untrained=True), tool_conversations()), TRAITS)
def test_no_text_is_lost_and_what_is_left_the_template_can_write(made, traits):
    adapted, notes = adapt(made, traits)
    if not traits.has_system:
        assert all(m.role != "system" for m in adapted.messages)
    if not traits.has_tool_list:
        assert adapted.tools == ()
    if not traits.has_tool_calls:
        assert all(m.role != "tool" and not m.tool_calls for m in adapted.messages)
    elif not traits.has_parallel_calls:
        assert all(len(m.tool_calls) < 2 for m in adapted.messages)
    if traits.has_tool_calls and not traits.has_free_call_ids:
        assert all(len(call.call_id) == 9 for m in adapted.messages for call in m.tool_calls)
        answered = [m.call_id for m in adapted.messages if m.role == "tool"]
        assert all(len(call_id) == 9 for call_id in answered)
        assert sorted(answered) == sorted(call.call_id for m in adapted.messages for call in m.tool_calls)
    text = "\n".join(m.content for m in adapted.messages)
    assert all(m.content in text for m in made.messages if m.content.strip())
    calls = [(call.name, call.arguments) for m in made.messages for call in m.tool_calls]
    if traits.has_tool_calls:
        assert calls == [(call.name, call.arguments) for m in adapted.messages for call in m.tool_calls]
    else:
        assert all(json.dumps({"name": n, "arguments": a}, ensure_ascii=False) in text for n, a in calls)
    if traits.has_parallel_calls:  # else there are more answers
        trained = [m.train for m in made.messages if m.role == "assistant"]
        assert trained == [m.train for m in adapted.messages if m.role == "assistant"]
    assert (adapted != made) == bool(notes)


def test_of_calls_that_share_an_id_each_has_its_own_result():
    calls = [replace(call, call_id="same") for call in CALLS]
    results = [Message("tool", content, call_id="same") for content in ("a stream", "three")]
    made = conversation(Message("user", "q"), Message("assistant", "", tool_calls=tuple(calls)), *results)
    adapted, _ = adapt(made, TemplateTraits(has_free_call_ids=False))
    new = [call.call_id for call in adapted.messages[1].tool_calls]
    assert new == [m.call_id for m in adapted.messages[2:]]
    assert len({*new}) == 2


def test_the_list_of_tools_does_not_contradict_a_template_that_has_calls_of_its_own():
    texts = [adapt(ASKED, traits)[0].messages[0].content for traits in (TemplateTraits(has_tool_list=False), NO_TOOLS)]
    assert all(text.startswith("You may call these tools:\n<tools>\n") for text in texts)
    assert texts[0].endswith("\n</tools>")
    assert texts[1].startswith(texts[0] + "\nCall a tool with:\n<tool_call>")


def test_a_system_text_goes_in_front_of_the_first_user_turn():
    made = conversation(Message("system", "be brief"), *turns("q", "a", "r", "b").messages)
    expected = [("user", "be brief\n\nq"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    adapted, notes = adapt(made, NO_SYSTEM)
    assert contents(adapted) == expected
    assert notes == ("the chat template has no system turn: its text is put in front of the first user turn",)


def test_without_a_user_turn_the_system_text_becomes_one_and_an_empty_one_leaves_no_blank_line():
    alone = conversation(Message("system", "be brief"), Message("assistant", "a"))
    assert contents(adapt(alone, NO_SYSTEM)[0]) == [("user", "be brief"), ("assistant", "a")]
    empty = conversation(Message("system", " "), *turns("q", "a").messages)
    assert contents(adapt(empty, NO_SYSTEM)[0]) == [("user", "q"), ("assistant", "a")]


def test_a_greeting_has_the_system_text_before_it_as_at_inference():
    made = conversation(Message("system", "be brief"), Message("assistant", "hello"), *turns("q", "a").messages)
    adapted = contents(adapt(made, NO_SYSTEM)[0])
    assert adapted == [("user", "be brief"), ("assistant", "hello"), ("user", "q"), ("assistant", "a")]


def test_calls_are_written_at_the_end_of_the_answer_and_results_join_in_one_user_turn():
    adapted, notes = adapt(ASKED, NO_TOOLS)
    system, user, call, result, answer = adapted.messages
    assert system.role == "system"
    assert [json.dumps(tool) in system.content for tool in TOOLS] == [True, True]
    assert (user.content, answer.content) == ("q", "a")
    assert call.content == (
        'I look.\n<tool_call>\n{"name": "look_up", "arguments": {"word": "río"}}\n</tool_call>'
        '\n<tool_call>\n{"name": "count", "arguments": {"limit": 3}}\n</tool_call>'
    )
    assert result.role == "user"
    assert result.content == ("<tool_response>\nthree\n</tool_response>\n<tool_response>\na stream\n</tool_response>")
    assert len(notes) == 2


def test_tools_come_behind_the_system_text_and_go_with_it_where_there_is_no_system_turn():
    made = conversation(Message("system", "be brief"), *turns("q", "a").messages, tools=TOOLS)
    first = adapt(made, NOTHING)[0].messages[0]
    assert first.role == "user"
    assert first.content.startswith("be brief\n\nYou may call these tools:\n<tools>\n")
    assert first.content.endswith("</tool_call>\n\nq")


def test_several_calls_are_made_one_after_another_each_with_its_own_result():
    turned = adapt(ASKED, ONE_CALL)[0].messages
    assert [(m.role, m.content) for m in turned[1:5]] == [
        *(("assistant", "I look."), ("tool", "a stream"), ("assistant", ""), ("tool", "three")),
    ]
    assert [call.name for m in turned for call in m.tool_calls] == ["look_up", "count"]
    assert [m.call_id for m in turned if m.role == "tool"] == ["000000001", "000000002"]
    assert [call.call_id for m in turned for call in m.tool_calls] == ["000000001", "000000002"]


def test_results_without_an_id_follow_the_calls_in_order():
    calls = tuple(ToolCall(call.name, call.arguments) for call in CALLS)
    results = (Message("tool", "a stream"), Message("tool", "three"))
    made = conversation(Message("user", "q"), Message("assistant", "", tool_calls=calls), *results)
    assert [m.content for m in adapt(made, ONE_CALL)[0].messages] == ["q", "", "a stream", "", "three"]


def test_a_result_that_answers_no_call_is_refused():
    made = conversation(
        Message("user", "q"), Message("assistant", "", tool_calls=CALLS), Message("tool", "x", call_id="z")
    )
    with pytest.raises(RecordError, match="answers no call"):
        adapt(made, ONE_CALL)


def test_what_is_not_json_is_refused():
    made = conversation(Message("user", "q"), Message("assistant", "", tool_calls=(ToolCall("f", {"x": {1}}),)))
    with pytest.raises(RecordError, match="cannot be written as JSON"):
        adapt(made, NO_TOOLS)
