"""The likelihoods of options that follow the same prompt, with the prompt computed once.

    prompt ──▶ keys and values ──repeated──▶ option 1 ──▶ log-likelihood
                                         ──▶ option 2 ──▶ log-likelihood

It pays where prompts are long and options short: then most of the tokens are those of prompts, and each is computed
once instead of once for each option.

Shape suffixes: `Q` questions, `P` tokens of the shared part, `N` options, `O` tokens behind it, `V` vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sft.answering.reading import padded
from sft.questions.question import Option


class Shared(NamedTuple):
    """The options of a question, cut where they part."""

    prefix: tuple[int, ...]
    """What all begin with, but for its last token: that one's prediction is the first that may count."""
    rests: tuple[tuple[int, ...], ...]
    """What follows in each."""
    starts: tuple[int, ...]
    """The first token in each rest whose likelihood counts; at least 1."""


def share(options: Sequence[Option]) -> Shared:
    """Cut the options of a question; the prefix may be empty."""
    length = min(option.start for option in options)
    for i in range(length):
        if len({option.ids[i] for option in options}) > 1:
            length = i
            break
    length = max(length - 1, 0)
    rests = tuple(option.ids[length:] for option in options)
    return Shared(options[0].ids[:length], rests, tuple(option.start - length for option in options))


def num_saved(options: Sequence[Option]) -> int:
    """How many tokens need not be computed again."""
    return (len(options) - 1) * len(share(options).prefix)


def shared_log_likelihoods(
    model: Any, questions: Sequence[Sequence[Option]], device: torch.device
) -> list[list[float]]:
    """The log-likelihood of each option of each question, in nats. To be called inside `answering`.

    Args:
        model: a Hugging Face causal language model whose class bears it (see `sft.answering.decoding`).
        questions: the options of each; every question has a shared prefix.
        device: where the model is.
    """
    cut = [share(options) for options in questions]
    ids_QP, mask_QP = padded([shared.prefix for shared in cut])
    positions_QP = (mask_QP.cumsum(-1) - 1).clamp(min=0)
    computed = model(
        input_ids=ids_QP.to(device),
        attention_mask=mask_QP.to(device),
        position_ids=positions_QP.to(device),
        use_cache=True,
        logits_to_keep=1,
    )
    counts = torch.tensor([len(shared.rests) for shared in cut])
    of_question = torch.arange(len(cut)).repeat_interleave(counts)
    past = computed.past_key_values
    past.batch_select_indices(of_question.to(device))
    return _of_rests(model, cut, mask_QP[of_question], past, device)


def _of_rests(model: Any, cut: Sequence[Shared], mask_NP: Tensor, past: Any, device: torch.device) -> list[list[float]]:
    rests = [rest for shared in cut for rest in shared.rests]
    longest = max(map(len, rests))
    ids_NO = torch.zeros(len(rests), longest, dtype=torch.int64)
    for i, rest in enumerate(rests):
        ids_NO[i, : len(rest)] = torch.tensor(rest)
    # Padding is behind the option, where its tokens do not see it.
    mask = torch.cat([mask_NP, torch.ones_like(ids_NO)], 1)
    # Its position is the last one of the option: the model's window may end there.
    last_N1 = torch.tensor([len(rest) - 1 for rest in rests])[:, None]
    positions_NO = mask_NP.sum(-1, keepdim=True) + torch.arange(longest).minimum(last_N1)
    logits_NOV = model(
        input_ids=ids_NO.to(device),
        attention_mask=mask.to(device),
        position_ids=positions_NO.to(device),
        past_key_values=past,
        use_cache=True,
    ).logits
    found, row = [], 0
    for shared in cut:
        own = []
        for rest, start in zip(shared.rests, shared.starts, strict=True):
            logits_OV = logits_NOV[row, start - 1 : len(rest) - 1].float()
            targets = torch.tensor(rest[start:], device=device)
            own.append(float(logits_OV.log_softmax(-1).gather(-1, targets[:, None]).double().sum()))
            row += 1
        found.append(own)
    return found
