"""The tag names the task in the system turn; whether it is there depends on the prompt and on nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import TaskTagConfig
from sft.data.task_tag import add_task_tag
from sft.schema import Conversation, Message, RecordLocation

ASKED = (Message("user", "q"), Message("assistant", "a"))
ALWAYS = TaskTagConfig(dropout=0.0)
KEYS = st.integers(0, 2**64 - 1)


def conversation(*messages, task="closed_qa"):
    return Conversation(messages, task, "s", 0, RecordLocation("s", 1))


def test_the_tag_is_alone_in_a_new_system_turn_or_behind_the_one_that_is_there():
    tag = Message("system", "Task type: closed qa")
    assert add_task_tag(conversation(*ASKED), ALWAYS, 1) == conversation(tag, *ASKED)
    spoken = conversation(Message("system", "Be brief.\n"), *ASKED)
    behind = Message("system", "Be brief.\n\n\nTask type: closed qa")
    assert add_task_tag(spoken, ALWAYS, 1) == conversation(behind, *ASKED)
    blank = conversation(Message("system", " "), *ASKED)
    assert add_task_tag(blank, ALWAYS, 1) == conversation(tag, *ASKED)


def test_a_task_may_have_a_text_of_its_own():
    tag = TaskTagConfig(text="This is {task} ({task}), as {json}.", texts={"gsm8k": "maths"}, dropout=0.0)
    for task, name in (("gsm8k", "maths"), ("open_qa_2", "open qa 2")):
        made = add_task_tag(conversation(*ASKED, task=task), tag, 1)
        assert made.messages[0].content == f"This is {name} ({name}), as {{json}}."


@given(KEYS, st.floats(0, 1))
def test_equal_prompts_are_treated_equally_and_nothing_else_is_changed(key, dropout):
    tag = TaskTagConfig(dropout=dropout)
    one, other = conversation(*ASKED), conversation(ASKED[0], Message("assistant", "another"), task="other")
    tagged = add_task_tag(one, tag, key)
    assert (tagged == one) == (add_task_tag(other, tag, key) == other)
    assert replace(tagged, messages=tagged.messages[-2:]) == one


@given(KEYS, st.floats(0, 1), st.floats(0, 1))
def test_with_more_dropout_the_same_prompts_and_more_go_without(key, one, other):
    less, more = (
        add_task_tag(conversation(*ASKED), TaskTagConfig(dropout=d), key).messages != ASKED
        for d in sorted((one, other))
    )
    assert less or not more


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("held_out", [False, True])
def test_the_share_without_a_tag_is_the_dropout_among_trained_and_held_out_prompts_alike(dropout, held_out):
    count, limit = 4000, 2**64 // 50
    keys = np.random.default_rng(0).integers(*((0, limit) if held_out else (limit, 2**64)), count, dtype=np.uint64)
    tag = TaskTagConfig(dropout=dropout)
    without = sum(add_task_tag(conversation(*ASKED), tag, int(key)).messages == ASKED for key in keys)
    assert abs(without - dropout * count) <= 4 * math.sqrt(count * dropout * (1 - dropout))
