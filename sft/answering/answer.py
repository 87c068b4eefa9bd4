"""An answer of a model to a question."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.data.tokenization import ExampleTokenizer
from sft.json_lines import from_json
from sft.questions.question import Question
from sft.scoring.call_form import in_usual_calls
from sft.thoughts import whole_text


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote or chose."""

    key: str
    """That of the question."""
    text: str
    """Its words, without control tokens and white space around them, and with its thought, whatever marks the template
    has for it, in `<think>`, and its calls in `<tool_call>`; of a choice, the option."""
    raw: str = ""
    """The same with control tokens, except the one at which it stopped, and with calls as the model wrote them. Calls
    that a server has read stand behind its text."""
    num_tokens: int = 0
    """How many tokens it wrote, with the one at which it stopped."""
    stopped: bool = True
    """Whether it ended by itself: a stop token, not the limit of its length."""
    likelihoods: tuple[float, ...] = ()
    """Of a choice: the log-likelihood of each option, in nats, over its tokens and the end of the turn."""
    option_lengths: tuple[int, ...] = ()
    """Of a choice: the number of these tokens of each option."""

    def as_json(self) -> dict[str, Any]:
        """The content of its line in a file."""
        return asdict(self)


def read_answer(content: Mapping[str, Any]) -> Answer:
    """The inverse of `as_json`."""
    likelihoods = tuple(math.nan if value is None else value for value in content["likelihoods"])
    lists = {"likelihoods": likelihoods, "option_lengths": tuple(content["option_lengths"])}
    return from_json(Answer, {**content, **lists})


def written_answer(question: Question, ids: Sequence[int], stopped: bool, tokenizer: ExampleTokenizer) -> Answer:
    """What a model wrote; if it ended by itself, its stop token is the last."""
    own = ids[:-1] if stopped else ids
    texts = (tokenizer.words_of(own), tokenizer.text_of(own))
    text, raw = (whole_text(question.prompt, text, question.thinks, tokenizer.marks) for text in texts)
    return Answer(question.key, with_usual_calls(question, text, tokenizer), raw, len(ids), stopped)


def with_usual_calls(question: Question, text: str, tokenizer: ExampleTokenizer) -> str:
    """An answer with its calls in the usual form, whatever form the template has for them."""
    form = tokenizer.call_form
    return in_usual_calls(text, form, question.expected) if form or question.written else text


def chosen_answer(question: Question, likelihoods: Sequence[float]) -> Answer:
    """The most probable option; no text if the model gives none a likelihood."""
    likeliest = most_likely(likelihoods)
    text = "" if likeliest is None else question.options[likeliest]
    lengths = tuple(len(option.ids) - option.start for option in question.choices)
    return Answer(question.key, text, text, likelihoods=tuple(likelihoods), option_lengths=lengths)


def most_likely(values: Sequence[float]) -> int | None:
    """Which value is the greatest; None if all are NaN, as those of a model whose weights overflowed.

    A NaN is never the greatest, wherever it stands. An infinite likelihood is read back from a file as NaN.
    """
    known = [number for number, value in enumerate(values) if not math.isnan(value)]
    return max(known, key=values.__getitem__, default=None)
