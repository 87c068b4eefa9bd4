"""A model writes the answers to a batch of prompts, token by token.

transformers' own `generate` does it, with the settings of the run and none of the model's. Prompts are padded on the
left, so that all rows go on at the same place, and read in groups (`sft.answering.reading`); `sft.answering.decoding`
finds out whether a class of models bears that.

Where a model is split over ranks (ZeRO-3), each token of each rank needs all of them: they go on together until the
last one has its answers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from sft.answering.reading import Caching, padded, roomy_cache
from sft.model.attention import attention_of
from sft.progress import Tell
from sft.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Style:
    """How answers are written, the same for all questions of a run."""

    stop_ids: tuple[int, ...]
    """Tokens that end an answer; at least one."""
    temperature: float = 0.0
    """0: the most probable token each time."""
    top_p: float = 1.0
    seed: int = 17
    """What is drawn for a question depends on its key and on this, not on its batch."""


class Prompted(NamedTuple):
    """What one answer is written for."""

    key: str
    prompt_ids: tuple[int, ...]
    max_new_tokens: int


class Written(NamedTuple):
    """The tokens of an answer, and whether it ended by itself; its stop token is the last then."""

    ids: tuple[int, ...]
    stopped: bool


Take = Callable[[int], bool]
"""Is given each token as it is written, also the one at which the model stops; True ends the answer there."""


@contextmanager
def answering(model: Any, attention: str) -> Iterator[None]:
    """The model as at inference, until the block ends: no dropout, no gradients, an attention of transformers.

    Its own generation config is put aside: `generate` would take from it what a call does not name, such as a penalty
    for repetition.
    """
    was_training, own = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()
    try:
        with torch.no_grad(), attention_of(model, attention):
            yield
    finally:
        model.generation_config = own
        model.train(was_training)


def write_answers(
    model: Any,
    batch: Sequence[Prompted],
    style: Style,
    device: torch.device,
    caches: Caching = "roomy",
    in_step: bool = False,
    tell: Tell = lambda: None,
) -> list[Written]:
    """The answers to the batch, in its order. To be called inside `answering`.

    Args:
        model: a Hugging Face causal language model.
        batch: with `in_step`, it may be empty: this rank then only helps the others.
        style: how to write.
        device: where the model is.
        caches: whether and how keys and values of earlier tokens are kept.
        in_step: whether the model is split over ranks, which all call this together.
        tell: called after each token.
    """

    def look(ids_BT: Tensor) -> bool:
        tell()
        return False

    # A rank without prompts runs two tokens, whose ids do not matter.
    rows = list(batch) or [Prompted("", (0, 0), 1)]
    written = _generate(model, rows, style, device, caches, look, in_step)
    return [_cut(ids, row, style) for ids, row in zip(written, batch, strict=False)]


def write_one(model: Any, row: Prompted, style: Style, device: torch.device, caches: Caching, take: Take) -> Written:
    """The answer to one prompt, as `write_answers` gives it, each token told at once. To be called inside `answering`.

    Args:
        model: see `write_answers`.
        row: the prompt.
        style: see `write_answers`.
        device: see `write_answers`.
        caches: see `write_answers`.
        take: gets each token, and may end the answer.
    """
    [ids] = _generate(model, [row], style, device, caches, lambda ids_BT: take(int(ids_BT[0, -1])), in_step=False)
    return _cut(ids, row, style)


def _generate(
    model: Any,
    rows: Sequence[Prompted],
    style: Style,
    device: torch.device,
    caches: Caching,
    look: Callable[[Tensor], bool],
    in_step: bool,
) -> list[list[int]]:
    """What is written behind each prompt. `look` gets all ids after each token, and may end it."""
    prompts = [row.prompt_ids for row in rows]
    input_ids, mask = padded(prompts)
    num_new = max(row.max_new_tokens for row in rows)
    settings = GenerationConfig(
        max_new_tokens=num_new,
        do_sample=False,
        use_cache=caches != "none",
        eos_token_id=list(style.stop_ids),
        pad_token_id=style.stop_ids[0],
    )
    # Ranks in step read all prompts at once: others may have other groups.
    group_tokens = input_ids.numel() if in_step else None
    cached = roomy_cache(model, prompts, num_new, device, group_tokens) if caches == "roomy" else {}
    output = model.generate(
        input_ids.to(device),
        attention_mask=mask.to(device),
        generation_config=settings,
        logits_processor=LogitsProcessorList([_Drawing(rows, style)] if style.temperature > 0 else []),
        stopping_criteria=StoppingCriteriaList([_Looking(look)]),
        synced_gpus=in_step,
        **cached,
    )
    behind: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
    return behind


def _cut(ids: Sequence[int], row: Prompted, style: Style) -> Written:
    """The answer without what the other rows of its batch made it longer by."""
    ids = ids[: row.max_new_tokens]
    for i, token in enumerate(ids):
        if token in style.stop_ids:
            return Written(tuple(ids[: i + 1]), True)
    return Written(tuple(ids), False)


class _Looking(StoppingCriteria):
    """Hands over what is written so far, and stops where that is asked for."""

    def __init__(self, look: Callable[[Tensor], bool]) -> None:
        self._look = look

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        is_over = self._look(input_ids)
        return torch.full(input_ids.shape[:1], is_over, dtype=torch.bool, device=input_ids.device)


class _Drawing(LogitsProcessor):
    """Draws each row's tokens with a generator of its own: what is drawn does not depend on the other rows.

    The most probable token after adding Gumbel noise is a draw from the distribution (Gumbel 1954, "Statistical Theory
    of Extreme Values").
    """

    def __init__(self, rows: Sequence[Prompted], style: Style) -> None:
        self._style = style
        self._draws = [torch.Generator().manual_seed(derive_seed(style.seed, "answer", row.key)) for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float() / self._style.temperature
        if self._style.top_p < 1.0:
            logits = _most_probable(logits, self._style.top_p)
        uniform = torch.stack([torch.rand(logits.shape[-1], generator=draw) for draw in self._draws])
        return logits - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(logits.device)


def _most_probable(logits_BV: Tensor, top_p: float) -> Tensor:
    """Without the tokens that are not among the most probable ones with this probability together."""
    ordered, places = logits_BV.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    left_out = torch.zeros_like(before, dtype=torch.bool).scatter(-1, places, before >= top_p)
    return logits_BV.masked_fill(left_out, -torch.inf)
