"""How a class of models may be decoded: tried on a tiny model of the class in float32, not looked up.

Some models do not bear padding on the left: states that are carried on, positions that count the padding. With some,
the cache or the fused attention changes what is computed. In float32, rounding is far below what any of these does.
"""

import copy
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig

from sft.answering.reading import Caching, padded, roomy_cache
from sft.answering.shared_prompts import shared_log_likelihoods
from sft.answering.writing import answering
from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.model.packing_probe import ordinary_token_ids
from sft.model.tiny_model import tiny_config, tiny_model
from sft.questions.question import Option

_TOLERANCE = 1e-4
_LENGTHS = (5, 12)
_NEW_TOKENS = 6


_BETTER: Sequence[dict[str, Any]] = ({"attention": "sdpa"}, {"caches": "grown"}, {"pads": True}, {"caches": "roomy"})
"""What is tried, each with those before it that were right."""


class Decoding(NamedTuple):
    """What gives the right answers with a class of models."""

    attention: str
    """The name of transformers' attention."""
    caches: Caching
    """Whether and how keys and values, or states, of earlier tokens may be kept."""
    pads: bool
    """Whether prompts of several lengths may share a batch."""
    shares: bool = False
    """Whether several options may go on from one computed prompt."""


SAFE = Decoding("eager", caches="none", pads=False)
"""What is right for every model that has a forward pass: the reference attention of the model's authors, all tokens
again for each token, each length alone."""


def try_decoding(config: Any, **options: Any) -> Decoding:
    """The fastest way that gives models of the class of `config` the answers of the safe one.

    It is the safe one where no tiny model of the class can be made.

    Args:
        config: of transformers.
        options: for `from_config`, such as `trust_remote_code`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            small = tiny_config(copy.deepcopy(config))
            model = tiny_model(small, None, **options)
            known = ordinary_token_ids(small)
            prompts = [[known[(7 * i + 3 * length) % len(known)] for i in range(length)] for length in _LENGTHS]
            right = [_scores(model, [prompt], SAFE)[0] for prompt in prompts]
        except RAISED_BY_CODE:
            return SAFE
        found = SAFE
        for better in _BETTER:
            tried = found._replace(**better)
            found = tried if _is_right(model, prompts, right, tried) else found
        may_share = found.caches != "none" and found.pads
        return found._replace(shares=may_share and _can_share(model, prompts, found.attention))


def _is_right(model: Any, prompts: Sequence[Sequence[int]], right: Sequence[Tensor], way: Decoding) -> bool:
    # Two prompts a batch in any case: they may be read apart.
    batches = [prompts] if way.pads else [[prompt, prompt] for prompt in prompts]
    expected = right if way.pads else [scores for scores in right for _ in range(2)]
    try:
        found = [scores for batch in batches for scores in _scores(model, batch, way)]
    except RAISED_BY_CODE:
        return False
    return all(bool((a - b).abs().max() < _TOLERANCE) for a, b in zip(found, expected, strict=True))


def _can_share(model: Any, prompts: Sequence[Sequence[int]], attention: str) -> bool:
    """Whether options behind prompts, all of several lengths, have the likelihoods that they have alone."""
    questions = [
        [Option((*prompt, *other[:length]), len(prompt)) for other, length in ((prompts[1], 3), (prompts[0], 5))]
        for prompt in prompts
    ]
    try:
        with answering(model, attention):
            found = shared_log_likelihoods(model, questions, torch.device("cpu"))
        with answering(model, SAFE.attention):
            right = [[_alone(model, option) for option in options] for options in questions]
    except RAISED_BY_CODE:
        return False
    return bool((torch.tensor(found) - torch.tensor(right)).abs().max() < _TOLERANCE)


def _alone(model: Any, option: Option) -> float:
    logits = model(input_ids=torch.tensor([option.ids]), use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logits[i - 1, option.ids[i]]) for i in range(option.start, len(option.ids)))


def _scores(model: Any, prompts: Sequence[Sequence[int]], way: Decoding) -> Tensor:
    """The log-probabilities of a few new tokens behind each prompt: (prompts, new tokens, vocabulary)."""
    ids, mask = padded(prompts)
    settings = GenerationConfig(
        max_new_tokens=_NEW_TOKENS,
        do_sample=False,
        use_cache=way.caches != "none",
        eos_token_id=None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    with answering(model, way.attention):
        read = partial(roomy_cache, model, prompts, _NEW_TOKENS, torch.device("cpu"), group_tokens=1)
        cached = read() if way.caches == "roomy" else {}
        output = model.generate(ids, attention_mask=mask, generation_config=settings, **cached)
    return torch.stack(output.scores, 1).log_softmax(-1)
