"""The cases that a model is compared on: fixed ones that are difficult, and held-out ones of the run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.turn_form import TurnForm, template_turn
from sft.data.token_store import TokenStore
from sft.errors import RecordError
from sft.parity.case import Case
from sft.questions.question import Question, questions_in
from sft.schema import Conversation, Example, Message, RecordLocation, ToolCall

_OPENAI = TurnForm(text_arguments=True)
_NUM_HELDOUT = 8
_MOST_TOKENS = 1024
"""Of a held-out case: longer ones cost time and show nothing else."""
_NEW_TOKENS = 32


class FixedCases(NamedTuple):
    """The fixed cases, and why some of them do not exist with this template."""

    cases: tuple[Case, ...]
    left_out: tuple[str, ...]


def fixed_cases(pipeline: RecordPipeline, config: SftConfig) -> FixedCases:
    """The fixed conversations in the run's template.

    Args:
        pipeline: that of the run.
        config: says whether prompts have a tag, and how long they may be.
    """
    cases, left_out = [], []
    conversations = dict(_conversations())
    if config.data.task_tag is not None:
        conversations["a task tag"] = conversations["one turn"]
    for name, conversation in conversations.items():
        tagged = name == "a task tag"
        try:
            case = _case(name, pipeline.tag(conversation, 0, "always") if tagged else conversation, pipeline)
            if len(case.ids) > config.data.max_len_tokens:
                raise RecordError(f"it has {len(case.ids)} tokens, more than data.max_len_tokens")
            cases.append(case)
        except RecordError as error:
            left_out.append(f"{name}: {str(error).partition(chr(10))[0]}")
    return FixedCases(tuple(cases), tuple(left_out))


def _case(name: str, conversation: Conversation, pipeline: RecordPipeline) -> Case:
    text, rendering = pipeline.renderer.last_answer(conversation)
    (example,) = pipeline.tokenizer.tokenize([rendering])
    if isinstance(example, RecordError):
        raise example
    start, stop = _learned(example)
    asked = conversation.messages[:-1]
    return Case(
        name,
        tuple(example.input_ids[:stop].tolist()),
        start,
        tuple(pipeline.tokenizer.ids_of(text)),
        tuple(template_turn(message, pipeline.inference.form) for message in asked),
        tuple(template_turn(message, _OPENAI) for message in asked),
        conversation.tools,
        _NEW_TOKENS,
    )


def _learned(example: Example) -> tuple[int, int]:
    """Where the last learned tokens of a row begin and end.

    Raises:
        RecordError: none is.
    """
    learned = example.loss_mask.nonzero()[0]
    if not len(learned):
        raise RecordError("nothing of its answer is learned")
    stop = start = int(learned[-1]) + 1
    while start > 1 and example.loss_mask[start - 1]:  # position 0 is never learned
        start -= 1
    return start, stop


def _conversations() -> Iterator[tuple[str, Conversation]]:
    user, answer = Message("user", "Name three colours."), Message("assistant", "Red, green and blue.")
    yield "one turn", _conversation(user, answer)
    yield "system text", _conversation(Message("system", "Answer in one line."), user, answer)
    more = Message("user", "And one more?"), Message("assistant", "Yellow.")
    yield "several turns", _conversation(user, answer, *more)
    text = "Übersetze „数学“ 🙂 👩‍👩‍👧: e\u0301 é, \u0645\u0631\u062d\u0628\u0627, a\u00a0b"
    yield "unicode", _conversation(Message("user", text), Message("assistant", "Maße – 数 🙂"))
    spaced = "  two spaces,\n\n\ta tab, and an end:  \n"
    yield "white space", _conversation(Message("user", spaced), answer)
    yield "an empty answer before", _conversation(user, Message("assistant", ""), *more)
    call = ToolCall("look_up", {"word": "river", "limit": 2}, "000000001")
    calling = Message("assistant", "", tool_calls=(call,)), Message("tool", "a stream", call_id="000000001")
    parameters = {
        "type": "object",
        "properties": {"word": {"type": "string", "description": "a word"}, "limit": {"type": "integer"}},
        "required": ["word"],
    }
    about = {"name": "look_up", "description": "Looks a word up.", "parameters": parameters}
    tools = ({"type": "function", "function": about},)
    asking = Message("user", "What is a river?")
    yield "tools", replace(_conversation(asking, Message("assistant", "A stream.")), tools=tools)
    yield "a call of a tool", replace(_conversation(asking, *calling, Message("assistant", "A stream.")), tools=tools)


def _conversation(*messages: Message) -> Conversation:
    return Conversation(messages, "a task", "fixed", 0, RecordLocation("fixed", 1))


def asked_cases(questions: Path, pipeline: RecordPipeline, stop_ids: Sequence[int]) -> list[Case]:
    """Some of the questions of a run, of as many tasks as possible; the first right answer is theirs."""
    by_task: dict[str, list[Question]] = {}
    for question in questions_in(questions):
        if len(question.prompt_ids) <= _MOST_TOKENS:
            by_task.setdefault(question.task, []).append(question)
    rounds = (own[i] for i in range(_NUM_HELDOUT) for own in by_task.values() if i < len(own))
    return [_of_question(question, pipeline, stop_ids) for question in islice(rounds, _NUM_HELDOUT)]


def _of_question(question: Question, pipeline: RecordPipeline, stop_ids: Sequence[int]) -> Case:
    answer = pipeline.tokenizer.ids_of(question.references[0])
    # Calls and thoughts of earlier turns are rewritten for templates without a form for them, and a question has the
    # turns as they were before: a server is not asked with these.
    is_plain = not any("tool_calls" in turn or "<think>" in str(turn["content"]) for turn in question.messages)
    messages = question.messages if is_plain else ()
    return Case(
        f"{question.task}, {question.where}",
        (*question.prompt_ids, *answer, *stop_ids[:1]),
        len(question.prompt_ids),
        question.prompt_ids,
        messages,
        messages,
        question.tools,
        min(question.max_new_tokens, _NEW_TOKENS),
    )


def heldout_rows(store: TokenStore, heldout: PackPlan, most: int) -> list[Case]:
    """Some held-out examples of as many tasks as possible, of which only the tokens are known.

    Args:
        store: has the examples.
        heldout: the plan of what is held out.
        most: the longest example that training sees, which answers may not exceed.
    """
    by_task: dict[int, list[int]] = {}
    for i in heldout.example_ids.tolist():
        if int(store.offsets[i + 1] - store.offsets[i]) <= _MOST_TOKENS:
            by_task.setdefault(int(store.task_ids[i]), []).append(i)
    rounds = (own[i] for i in range(_NUM_HELDOUT) for own in by_task.values() if i < len(own))
    cases = []
    for i in islice(rounds, _NUM_HELDOUT):
        example = store.example(i)
        start, stop = _learned(example)
        name = f"{store.tasks[int(store.task_ids[i])]}, held-out example {i}"
        ids = example.input_ids[:stop].tolist()
        cases.append(Case(name, (*ids,), start, (*ids[:start],), max_new_tokens=max(1, min(_NEW_TOKENS, most - start))))
    return cases
