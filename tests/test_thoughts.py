"""A thought is never scored as the answer, and the same words within an answer are part of it."""

import json

import pytest

from sft.answering.answer import Answer, written_answer
from sft.chat.reply import ThoughtMarks
from sft.config import ModelConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.tokenization import ExampleTokenizer
from sft.endpoint.chat import ReplyError, read_reply
from sft.evaluation.judged_answers import judge
from sft.questions.question import Question
from sft.scoring.registry import read_score
from sft.thoughts import answer_in, served_text
from tests.conftest import TokenizerDir

CUT, NOTHING = "the thought was cut", "nothing behind the thought"
CODE = 'def strip(text):\n    """Cut off <think>."""\n    return text.rpartition("</think>")[2]'


def question_of(prompt: str = "2+2?", *, thinks: bool = False) -> Question:
    return Question(
        "s/0", 0, 0, "sums", "s", "s:1", False, "generate", (), (), prompt, (1,), 8, ("4",), ("4", "5"), thinks=thinks
    )


@pytest.mark.parametrize(
    ("text", "answer", "why_empty"),
    [
        ("<think>\nIt is 5. No.\n</think>\n\n4", "4", ""),
        ("<think>\nIt is 4", "", CUT),
        ("<think>\nIt is 4\n</think>", "", NOTHING),
        ("<think>\n\n</think>\n\nWrite </think> at its end.", "Write </think> at its end.", ""),
        (CODE, CODE, ""),
        ("A thought stands in <think>\n", "A thought stands in <think>\n", ""),
        ("</think> ends it", "</think> ends it", ""),
    ],
)
def test_the_answer_is_what_stands_behind_a_thought_at_the_beginning(text: str, answer: str, why_empty: str) -> None:
    assert answer_in(text) == (answer, why_empty)
    pieces = [*ThoughtMarks(is_open=False).split(text, is_last=True)]
    shown = "".join(piece.text for piece in pieces if not piece.is_thought)
    assert shown.strip() == answer.strip(), "the chat shows something else as the answer"


@pytest.mark.parametrize(
    ("text", "score", "note"),
    [
        ("<think>\nIt is 5.\n</think>\n\n4", 1.0, ""),
        ("<think>\nIt is 4", 0.0, f"{CUT}: no number in the answer, or none that can be read"),
        ("<think>\nIt is 4\n</think>\n", 0.0, f"{NOTHING}: no number in the answer, or none that can be read"),
        ("</think> is 4", 1.0, ""),
    ],
)
def test_a_thought_without_an_answer_is_scored_as_an_empty_one(text: str, score: float, note: str) -> None:
    question = question_of()
    answers = {question.key: Answer(question.key, text, f"<|begin|>{text}")}
    [judged] = judge([question], answers, {"sums": read_score("number")}, False, lambda: None)
    assert (judged.score, judged.note, judged.answer.text) == (score, note, text)


def test_an_option_that_was_chosen_is_no_thought() -> None:
    option = "<think>"
    question = Question(
        "s/0", 0, 0, "t", "s", "s:1", False, "choice", (), (), "?", (1,), 8, (option,), (option, "</think>")
    )
    answers = {question.key: Answer(question.key, option, option, likelihoods=(-1.0, -2.0), option_lengths=(1, 1))}
    [judged] = judge([question], answers, {"t": read_score("choice")}, False, lambda: None)
    assert judged.score == 1.0


@pytest.mark.parametrize(
    ("text", "thinks", "answer"),
    [
        ("It is 5.\n</think>\n\n4", True, "4"),
        ("It is 5.\n</think>\n\n4", False, "4"),
        ("It is 4", True, ""),
        ("It is 4", False, "It is 4"),
    ],
)
def test_a_prompt_that_opens_a_thought_asks_for_one_if_it_was_trained(
    tokenizer_dir: TokenizerDir, text: str, thinks: bool, answer: str
) -> None:
    tokenizer = ExampleTokenizer(load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml")))))
    prompt = "<|im_start|>assistant\n<think>\n"
    asked, plain = question_of(prompt, thinks=thinks), question_of("assistant\n<think>\n\n</think>\n\n", thinks=thinks)
    ids = tokenizer.ids_of(text)
    written = written_answer(asked, ids, False, tokenizer)
    assert [answer_in(whole).answer for whole in (written.text, written.raw)] == [answer] * 2
    assert written_answer(plain, ids, False, tokenizer).text == text


def test_marks_that_are_control_tokens_stay_in_the_words(tokenizer_dir: TokenizerDir) -> None:
    backend = load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml"))))
    backend.add_tokens(["<think>", "</think>"], special_tokens=True)
    tokenizer = ExampleTokenizer(backend)
    ids = tokenizer.ids_of("<think>It is 5.</think>4<|im_end|>")
    written = written_answer(question_of(), ids, True, tokenizer)
    assert answer_in(written.text) == ("4", "")
    assert "<think>" in tokenizer.special_tokens, "they would be text, and this would show nothing"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 5.\n</think>\n\n4", "4"),
        (CODE, CODE),
        ("<think>\n4\n</think>\n5", "5"),
        ("a\n<think>\nb\n</think>\n", None),
    ],
)
def test_a_server_may_give_the_end_of_a_thought_alone(text: str, answer: str | None) -> None:
    assert answer_in(served_text(text)).answer == (text if answer is None else answer)


def test_a_server_that_keeps_a_cut_thought_apart_gives_an_empty_answer() -> None:
    def body(**message: object) -> bytes:
        return json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode()

    for name in ("reasoning_content", "reasoning"):
        reply = read_reply(body(content=None, **{name: "It is 4"}), 8)
        assert answer_in(reply.text) == ("", CUT)
    assert read_reply(body(content="4", reasoning="It is 5"), 8).text == "4"
    with pytest.raises(ReplyError, match="without text"):
        read_reply(body(content=None, reasoning=" "), 8)
