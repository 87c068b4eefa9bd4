"""The marks of thoughts are the template's own: what training teaches is what scoring, judges and the chat read."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sft.answering.answer import written_answer
from sft.chat.reply import ThoughtMarks
from sft.data.rendering.chat_template import TemplateRenderer
from sft.data.rendering.renderer import UNMARKED_THOUGHTS, ConversationRenderer
from sft.data.tokenization import ExampleTokenizer
from sft.schema import Conversation, Message, RecordLocation
from sft.thoughts import USUAL, Marks, answer_in, in_usual_form, opens_thought, without_thought
from tests.data.test_template_cases import CASES
from tests.test_thoughts import question_of

HARMONY = next(case["template"] for case in CASES if case["name"] == "thoughts_in_a_field_of_their_own")
PARTS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}{% else %}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{{ part.text if part.type == 'text' else '[THINK]' + part.thinking + '[/THINK]' }}{% endfor %}{% endif %}"
    "{{ '<|return|>' }}{% endif %}{% endfor %}"
)


def turns(answer: str, prompt: str = "") -> str:
    """A template of plain turns that writes answers, and the end of its generation prompt, so."""
    return (
        "{% for m in messages %}{{ '<|start|>' + m.role + '\n' }}{% if m.role == 'user' %}{{ m.content }}{% else %}"
        f"{answer}{{% endif %}}{{{{ '<|return|>' }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '<|start|>assistant\n{prompt}' }}}}{{% endif %}}"
    )


def thought(start: str, end: str) -> str:
    return f"{{% if m.reasoning_content %}}{{{{ '{start}' + m.reasoning_content + '{end}' }}}}{{% endif %}}"


CONTENT = "{{ m.content }}"
SEED = thought("<seed:think>", "</seed:think>\n") + CONTENT
COHERE = thought("<|START_THINKING|>", "<|END_THINKING|>") + "<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>"
TOKENS = (
    *("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "[INST]", "[/INST]", "[THINK]", "[/THINK]"),
    *("<seed:think>", "</seed:think>", "<|START_THINKING|>", "<|END_THINKING|>"),
    *("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|return|>"),
)
FINAL = "<|channel|>final<|message|>"
KNOWN = {
    "channels": (HARMONY, Marks("<|channel|>analysis<|message|>", f"<|end|><|start|>assistant{FINAL}", FINAL)),
    "parts": (PARTS, Marks("[THINK]", "[/THINK]")),
    "two marks behind": (
        turns(COHERE),
        Marks("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>", "<|START_RESPONSE|>"),
    ),
    "opened by the prompt": (turns(SEED, "<seed:think>"), Marks("<seed:think>", "</seed:think>")),
    "opened, and a longer way without": (
        turns(COHERE, "<|START_THINKING|>"),
        Marks("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ),
    "no control tokens": (turns(thought("◁think▷", "◁/think▷") + CONTENT), Marks("◁think▷", "◁/think▷")),
    "always a block": (
        turns("◁think▷{{ m.reasoning_content or '' }}◁/think▷" + CONTENT),
        Marks("◁think▷", "◁/think▷"),
    ),
    "the usual ones": (turns(thought("<think>\n", "\n</think>\n\n") + CONTENT), USUAL),
    "the usual one opened": (turns(thought("<think>", "</think>") + CONTENT, "<think>\n"), USUAL),
    "as text": (turns(CONTENT), USUAL),
}
UNCLEAR = {
    "nothing between": turns(thought("", "\n\n") + CONTENT),
    "behind the answer": turns(CONTENT + thought("[THINK]", "[/THINK]")),
}


class Made(NamedTuple):
    renderer: ConversationRenderer
    tokenizer: ExampleTokenizer


@pytest.fixture
def made(tokenizer_dir):
    def make(template: str) -> Made:
        backend = AutoTokenizer.from_pretrained(str(tokenizer_dir(None)))
        backend.add_special_tokens({"additional_special_tokens": [*TOKENS], "eos_token": "<|return|>"})
        backend.chat_template = template
        tokenizer = ExampleTokenizer(backend)
        stops = frozenset(["<|return|>"])
        renderer = ConversationRenderer(TemplateRenderer(backend), tokenizer.special_tokens, stop_tokens=stops)
        return Made(renderer, tokenizer.with_marks(renderer.thought_marks or USUAL))

    return make


def conversation(answer: str, thought: str) -> Conversation:
    messages = (Message("user", "2+2?"), Message("assistant", answer, thought=thought))
    return Conversation(messages, "sums", "s", 0, RecordLocation("s.jsonl", 1))


@pytest.mark.parametrize("name", KNOWN)
def test_an_answer_as_it_is_learned_is_read_without_its_thought(made, name: str) -> None:
    template, marks = KNOWN[name]
    renderer, tokenizer = made(template)
    assert renderer.thought_marks == tokenizer.marks == marks
    for thinks in (True, False):
        prompt, rendering = renderer.last_answer(conversation("4, </think>.", "It is 5.\nNo." if thinks else ""))
        written = rendering.text[slice(*rendering.answers[0])]
        answer = written_answer(question_of(prompt, thinks=thinks), tokenizer.ids_of(written), True, tokenizer)
        assert answer_in(answer.text).answer.strip() == "4, </think>.", answer.text
        assert answer_in(answer.raw).answer.removesuffix("<|END_RESPONSE|>").strip() == "4, </think>.", answer.raw
        assert answer.text.startswith("<think>\nIt is 5.\nNo.") == thinks, "not the form of all other marks"
        words = tokenizer.words_of(tokenizer.ids_of(written))
        for step in (1, 100):
            split = ThoughtMarks(opens_thought(prompt, marks) and thinks, marks).split
            pieces = [piece for at in range(0, len(words), step) for piece in split(words[at : at + step])]
            pieces += split("", is_last=True)
            assert "".join(piece.text for piece in pieces) == words
            assert "".join(piece.text for piece in pieces if not piece.is_thought).strip() == "4, </think>."


@pytest.mark.parametrize("name", KNOWN)
def test_a_cut_thought_is_no_answer(made, name: str) -> None:
    renderer, tokenizer = made(KNOWN[name][0])
    prompt, rendering = renderer.last_answer(conversation("4", "It is 5."))
    written = rendering.text[slice(*rendering.answers[0])].partition(" 5.")[0]
    answer = written_answer(question_of(prompt, thinks=True), tokenizer.ids_of(written), False, tokenizer)
    assert answer_in(answer.text) == ("", "the thought was cut")


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_not_clear_is_said_and_nothing_is_cut(made, name: str) -> None:
    renderer, tokenizer = made(UNCLEAR[name])
    assert (renderer.thought_marks, tokenizer.marks) == (None, USUAL)
    text = "[THINK]It is 5.[/THINK]4"
    assert in_usual_form(text, tokenizer.marks) == text


def test_records_with_thoughts_say_that_they_are_not_told_from_answers(made) -> None:
    renderer, _ = made(UNCLEAR["nothing between"])
    assert UNMARKED_THOUGHTS in renderer.render(conversation("4", "Well."))[0].notes
    assert UNMARKED_THOUGHTS not in renderer.render(conversation("4", ""))[0].notes


WORDS = st.lists(st.sampled_from([*"ab \n<>/[]", "<think>", "</think>"]), max_size=12).map("".join)


@given(WORDS, WORDS, st.booleans())
def test_between_any_marks_any_thought_is_cut(thought: str, answer: str, with_space: bool) -> None:
    marks = Marks("[T]", "[/T]", "[A]")
    space = "\n" if with_space else ""
    if thought.strip() and not {"[T]", "[/T]", "[A]"} & {thought, answer} and "[/T]" not in thought:
        whole = in_usual_form(f"{space}[T]{thought}{space}[/T]{answer}", marks)
        assert answer_in(whole).answer == answer.strip()
        assert answer_in(in_usual_form(f"[T]{thought}", marks)) == ("", "the thought was cut")
    if not answer.lstrip().startswith("<think>"):
        assert answer_in(in_usual_form(f"[A]{answer}", marks)).answer.strip() == answer.strip()


def test_a_reference_loses_its_thought_and_no_words_of_its_own() -> None:
    marks = Marks("◁think▷", "◁/think▷", "Answer:")
    assert without_thought("◁think▷It is 5.◁/think▷4", marks) == "4"
    assert without_thought("Answer: 4", marks) == "Answer: 4"
