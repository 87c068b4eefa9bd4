"""End-of-text markers leave the ends of answers; this tokenizer's control tokens are let in nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.markers import END_MARKERS, strip_markers
from sft.errors import RecordError
from sft.schema import Conversation, Message, RecordLocation, ToolCall
from tests.data.conversations import ANSWERS, CONTENTS

SPECIAL = frozenset({"<|endoftext|>", "<|im_start|>", "<|im_end|>"})
SPACES = st.sampled_from(["", " ", "\n", " \n\t"])
PLAIN = st.sampled_from(["a", " an answer", "<|", "x < y", "```\ncode\n```", "数学", "<think>\nhm\n</think>\n\nso"])


def conversation(*messages, tools=()):
    return Conversation(messages, "t", "s", 0, RecordLocation("s", 1), tools)


def answered(answer):
    return conversation(Message("user", "q"), Message("assistant", answer))


@given(PLAIN, st.lists(st.tuples(SPACES, st.sampled_from(sorted(END_MARKERS | SPECIAL))), min_size=1), SPACES)
def test_markers_at_the_end_of_an_answer_are_taken_away_with_the_space_around_them(answer, markers, space):
    given = answered(answer + "".join(f"{before}{marker}" for before, marker in markers) + space)
    assert strip_markers(given, SPECIAL) == (answered(answer.rstrip()), 1)


@given(st.lists(st.tuples(CONTENTS, ANSWERS), min_size=1, max_size=4), st.frozensets(st.sampled_from(sorted(SPECIAL))))
def test_what_comes_out_holds_no_control_token_and_no_marker_at_an_end(pairs, special):
    messages = [Message(role, t) for pair in pairs for role, t in zip(("user", "assistant"), pair, strict=True)]
    try:
        stripped, num_stripped = strip_markers(conversation(*messages), special)
    except RecordError:
        inside = [m for m in messages if any(t in m.content for t in special)]
        only_a_marker = [m for m in messages if m.role == "assistant" and m.content.lstrip().startswith("<")]
        assert inside or only_a_marker
        return
    assert not any(token in m.content for m in stripped.messages for token in special)
    answers = [(m.content, s.content) for m, s in zip(messages, stripped.messages, strict=True)][1::2]
    assert num_stripped == sum(before != after for before, after in answers)
    for before, after in answers:
        assert before.startswith(after)
        assert not after.rstrip().endswith(tuple(END_MARKERS | special))
    # A second time, nothing is left to do.
    assert strip_markers(stripped, special) == (stripped, 0)


def test_every_answer_loses_its_marker_and_the_rest_is_as_it_was():
    many = conversation(
        *(Message("user", "one"), Message("assistant", "1<|endoftext|>", train=False)),
        *(Message("user", "two "), Message("assistant", " 2 ")),
        *(Message("user", "three"), Message("assistant", "3 <|im_end|>\n")),
    )
    stripped, num_stripped = strip_markers(many, SPECIAL)
    assert num_stripped == 2
    assert [m.content for m in stripped.messages] == ["one", "1", "two ", " 2 ", "three", "3"]
    assert [m.train for m in stripped.messages] == [m.train for m in many.messages]


def test_an_answer_of_markers_alone_is_refused_unless_it_calls_a_tool():
    with pytest.raises(RecordError, match="the answer in message 2 is nothing but an end-of-text marker"):
        strip_markers(answered(" <|endoftext|> "), SPECIAL)
    calls = (ToolCall("now", {}),)
    given = conversation(Message("user", "q"), Message("assistant", "<|endoftext|>", tool_calls=calls))
    stripped, _ = strip_markers(given, SPECIAL)
    assert stripped.messages[1] == Message("assistant", "", tool_calls=calls)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (conversation(Message("system", "x<|im_end|>y"), Message("assistant", "a")), r"message 1 \(system\)"),
        (conversation(Message("user", "q<|im_end|>"), Message("assistant", "a")), r"message 1 \(user\)"),
        (answered("a <|im_end|> b"), r"message 2 \(assistant\)"),
        (answered("<|im_end|>b<|endoftext|>"), r"message 2 \(assistant\)"),
        (conversation(Message("user", "q"), Message("tool", "<|im_end|>")), r"message 2 \(tool\)"),
        (
            conversation(Message("assistant", "", tool_calls=(ToolCall("f", {"a": ["<|im_end|>"]}),))),
            r"the tool call in message 1 \(assistant\)",
        ),
        (conversation(Message("user", "q"), tools=({"description": "<|im_end|>"},)), "the tools"),
    ],
)
def test_a_control_token_anywhere_else_is_refused(given, where):
    with pytest.raises(RecordError, match=rf"the special token '<\|im_end\|>' stands in {where}: "):
        strip_markers(given, SPECIAL)


def test_only_the_tokenizers_own_tokens_are_control_tokens():
    ordinary = answered("<think>\n</think>\n\n<tool_call> <|im_end|> in <s>strike</s>")
    assert strip_markers(ordinary, frozenset()) == (ordinary, 0)
    assert strip_markers(answered("yes</s>"), frozenset({"<s>", "</s>"})) == (answered("yes"), 1)
    with pytest.raises(RecordError, match="'<s>' stands in message 2"):
        strip_markers(ordinary, frozenset({"<s>", "</s>"}))
