"""Asks a model all questions, round after round; the ranks share each round, and the first one keeps the answers."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sft.answering.answer import Answer, chosen_answer, read_answer, written_answer
from sft.answering.choosing import log_likelihoods
from sft.answering.decoding import Decoding
from sft.answering.rounds import BatchSize, Lengths, rounds_of, slices_of
from sft.answering.shared_prompts import num_saved, share, shared_log_likelihoods
from sft.answering.writing import Prompted, Style, answering, write_answers
from sft.data.collate import Batch, Layout
from sft.data.tokenization import ExampleTokenizer
from sft.model.loss import TokenMeasure
from sft.progress import Tell
from sft.questions.question import Question
from sft.ranks.ranks import Ranks

KeepAnswers = Callable[[Sequence[Answer]], None]
"""Is given the answers of each round."""

Ask = Callable[[Sequence[Question], KeepAnswers], None]
"""Asks a model questions, wherever it is. All ranks call it together; the first one keeps the answers."""


class AskableModel(Protocol):
    """What is asked: a training engine, or a whole model (`sft.answering.whole_model`)."""

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        ...

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """See `sft.engine.engine.Engine`."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked. All ranks have the same."""

    style: Style
    decoding: Decoding
    layout: Layout
    """That of training, for options."""
    in_step: bool
    """Whether the model that writes is split over the ranks."""
    size: BatchSize = BatchSize()
    max_seconds: float | None = None
    """No slice of all tasks begins later than this after the first; see `sft.answering.rounds.slices_of`."""


class Respondent(NamedTuple):
    """Who answers, on this rank."""

    model: AskableModel
    """Computes the likelihoods of options."""
    writer: Any
    """The Hugging Face model that writes: that of `model`, or a whole copy of it."""
    tokenizer: ExampleTokenizer
    """The run's."""
    device: torch.device


_AnswerBatch = Callable[[Sequence[Question], Respondent, Asking, Tell], list[Answer]]


def ask_all(
    questions: Sequence[Question],
    respondent: Respondent,
    asking: Asking,
    ranks: Ranks,
    keep: KeepAnswers,
    tell: Tell = lambda: None,
) -> None:
    """Ask the questions; a collective of all ranks, which have the same questions.

    Args:
        questions: those that have no answer yet.
        respondent: answers this rank's share.
        asking: how to ask.
        ranks: share the questions.
        keep: called on the first rank with the answers of each round.
        tell: called before each batch, and after each token.
    """
    started = time.monotonic()
    # The same on all ranks: the model that is trained may be split over them, and then all have to take part.
    shares = asking.decoding.shares and not asking.in_step and _pays(questions)
    ways: dict[str, _AnswerBatch] = {"choice": partial(_choose, shares=shares), "generate": _write}
    for together in _slices(questions, asking, ranks.world.size):
        if _is_over(ranks, asking.max_seconds, started):
            return
        for way, batches in _rounds(together, asking, ranks.world.size):
            tell()
            answers = ways[way](batches[ranks.world.rank], respondent, asking, tell)
            gathered = ranks.gather(json.dumps([a.as_json() for a in answers]))
            if ranks.world.is_first:
                keep([read_answer(content) for text in gathered for content in json.loads(text)])


def _slices(questions: Sequence[Question], asking: Asking, num_ranks: int) -> list[list[Question]]:
    """Between which time may be over: each has its part of every task, number of shots and way to answer."""
    if asking.max_seconds is None:
        return [[*questions]]
    groups = [(question.task, question.shots, question.way) for question in questions]
    return [[questions[i] for i in own] for own in slices_of(groups, num_ranks * asking.size.rows)]


def _rounds(questions: Sequence[Question], asking: Asking, num_ranks: int) -> list[tuple[str, list[list[Question]]]]:
    """The way and each rank's batch, by round; both ways advance alike."""
    found: list[tuple[float, str, list[list[Question]]]] = []
    for way in ("choice", "generate"):
        own = [question for question in questions if question.way == way]
        pads = asking.decoding.pads or way == "choice"
        rounds = rounds_of([_lengths(question) for question in own], num_ranks, asking.size, asking.style.seed, pads)
        for number, together in enumerate(rounds):
            found.append((number / len(rounds), way, [[own[i] for i in batch] for batch in together]))
    return [(way, batches) for _, way, batches in sorted(found, key=itemgetter(0))]


def _is_over(ranks: Ranks, max_seconds: float | None, started: float) -> bool:
    """Whether time is over, by the clock of the first rank."""
    if max_seconds is None:
        return False
    over = ranks.world.is_first and time.monotonic() - started >= max_seconds
    return bool(ranks.max(torch.tensor([int(over)])).item())


def _lengths(question: Question) -> Lengths:
    if question.way == "choice":
        return Lengths(sum(len(option.ids) for option in question.choices), 0)
    return Lengths(len(question.prompt_ids), question.max_new_tokens)


def _write(batch: Sequence[Question], respondent: Respondent, asking: Asking, tell: Tell) -> list[Answer]:
    if not batch and not asking.in_step:
        return []
    _, writer, tokenizer, device = respondent
    prompted = [Prompted(q.key, q.prompt_ids, q.max_new_tokens) for q in batch]
    with answering(writer, asking.decoding.attention):
        caches = asking.decoding.caches
        found = write_answers(writer, prompted, asking.style, device, caches, asking.in_step, tell)
    return [
        written_answer(question, written.ids, written.stopped, tokenizer)
        for question, written in zip(batch, found, strict=True)
    ]


def _choose(
    batch: Sequence[Question], respondent: Respondent, asking: Asking, tell: Tell, *, shares: bool
) -> list[Answer]:
    found = _likelihoods(batch, respondent, asking, shares)
    answers = [chosen_answer(question, own) for question, own in zip(batch, found, strict=True)]
    tell()
    return answers


def _likelihoods(batch: Sequence[Question], respondent: Respondent, asking: Asking, shares: bool) -> list[list[float]]:
    """Of each option of each question: with shared prompts, or as in training."""
    if shares:
        if not batch:
            return []
        with answering(respondent.writer, asking.decoding.attention):
            return shared_log_likelihoods(respondent.writer, [q.choices for q in batch], respondent.device)
    options = [option for question in batch for option in question.choices]
    likelihoods = iter(log_likelihoods(respondent.model, options, asking.layout))
    return [[next(likelihoods) for _ in question.choices] for question in batch]


def _pays(questions: Sequence[Question]) -> bool:
    """Whether all can be shared, and so many tokens are saved that the second pass and the padding cost less."""
    chosen = [question.choices for question in questions if question.choices]
    if not all(share(options).prefix for options in chosen):
        return False
    num_tokens = sum(len(option.ids) for options in chosen for option in options)
    return sum(map(num_saved, chosen)) > _LEAST_SAVED * num_tokens


_LEAST_SAVED = 0.3
"""The share of all their tokens; see `benchmarks/generation.py`."""
