"""Whether a model gives each example the nll that it has alone: tried on a few short ones, not looked up in a list.

The probe changes the tokens of one example, and tokens behind the supervised ones of another. The nll of all other
tokens must stay the same (no leak, no look-ahead). It must also equal the nll of the model's own forward pass, with its
own attention and logits. The tolerance for rounding follows from the dtype, and from how much examples change each
other when nothing separates them, which is what a leak would show. In bfloat16 some models turn rounding into much more
for some inputs. So there it is measured what another rounding of attention does, and twice as much is allowed besides.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sft.data.collate import Batch, Layout, collate, collate_rows
from sft.schema import IntArray, Pack

TokenNll = Callable[[Batch, bool], Tensor]
"""(a batch, whether by the model's own forward pass) → the nll of each supervised token, in the order of its rows."""

_LENGTHS = (21, 9, 2, 13)
"""In tokens. Longer than windows and convolution kernels are in a tiny model; one is hardly an example."""
_CHANGED, _CUT, _KEPT_OF_CUT = 1, 3, 6
"""The example with other tokens, and the one that is changed only behind its first tokens."""

# (nats, share of the effect that examples have on each other) by which the mean nll of a token may differ: computed the
# same way beside other tokens, and computed in another way.
_SAME_WAY = {torch.float32: (5e-5, 2e-4), torch.bfloat16: (5e-3, 1e-2)}
_OTHER_WAY = {torch.float32: (5e-5, 2e-4), torch.bfloat16: (3e-2, 0.1)}
# How many times what rounding was measured to do is allowed besides.
_ROUNDINGS = {torch.float32: 0, torch.bfloat16: 2}


def probe_layout(
    nll: TokenNll,
    token_ids: Sequence[int],
    layout: Layout,
    dtype: torch.dtype,
    other_rounding: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> str | None:
    """What is wrong with the model in this layout, in words; None where each example has its own nll.

    Args:
        nll: runs the model, without a gradient. It is called eight times, with at most 45 tokens.
        token_ids: ids of ordinary tokens, to make the examples from; at least two.
        layout: how the examples are laid out for the model.
        dtype: the dtype that the model computes in.
        other_rounding: while it is entered, the model computes the same with other rounding (see
            `sft.model.attention.other_rounding`). In float32 it is not needed.
    """
    known = np.asarray(token_ids)
    examples = _examples(known)
    other = [ids.copy() for ids in examples]
    other[_CHANGED] = _others(examples[_CHANGED], known)
    other[_CUT][_KEPT_OF_CUT:] = _others(examples[_CUT][_KEPT_OF_CUT:], known)
    alone = [_nll(nll, [ids], "one_example", True)[0] for ids in examples]
    joined = _nll(nll, [np.concatenate(examples)], "one_example", True)[0]
    found = _nll(nll, examples, layout, False)
    after = _nll(nll, other, layout, False)
    with other_rounding():
        rounded = _nll(nll, examples, layout, False) if _ROUNDINGS[dtype] else found
    # Each of them, since no comparison with one that is not would refuse anything.
    if not all(bool(values.isfinite().all()) for values in (*alone, joined, *found, *after, *rounded)):
        return "its nll is not finite"
    starts = np.cumsum([0, *_LENGTHS])
    effects = [_gap(joined[a : a + n - 1], own) for a, n, own in zip(starts, _LENGTHS, alone, strict=False)]
    same_way, other_way = (nats + part * max(effects) for nats, part in (_SAME_WAY[dtype], _OTHER_WAY[dtype]))
    kept = [i for i in range(len(_LENGTHS)) if i not in (_CHANGED, _CUT)]
    leak = max(_gap(found[i], after[i]) for i in kept)
    if leak > same_way:
        return f"an example changes the nll of others beside it by {leak:.2g} nats a token"
    ahead = _gap(found[_CUT][: _KEPT_OF_CUT - 1], after[_CUT][: _KEPT_OF_CUT - 1])
    if ahead > same_way:
        return f"tokens change the nll of those before them by {ahead:.2g} nats a token: it looks ahead"
    error = max(map(_gap, found, alone))
    if error > other_way + _ROUNDINGS[dtype] * max(map(_gap, found, rounded)):
        return f"its nll is {error:.2g} nats a token off that of the model's own forward pass"
    return None


def ordinary_token_ids(config: Any) -> list[int]:
    """Ids of tokens without a special meaning to the model, such as a placeholder for a picture."""
    text = config.get_text_config()
    special: set[Any] = set()
    for section in (config, text):
        for name, value in section.to_dict().items():
            if name.endswith(("_token_id", "_token_index", "_token_ids")):
                special.update(value if isinstance(value, list) else [value])
    size = text.vocab_size
    candidates = np.linspace(0, size - 1, min(size, 512)).astype(int).tolist()
    return [i for i in dict.fromkeys(candidates) if i not in special]


def _nll(nll: TokenNll, examples: Sequence[IntArray], layout: Layout, by_own_forward: bool) -> list[Tensor]:
    """The nll of each example's tokens except the first, in the order of `examples`: float64."""
    lengths = [len(ids) for ids in examples]
    batch = _batch(examples, layout)
    values = nll(batch, by_own_forward).double().cpu()
    starts = np.cumsum([0, *(lengths[i] - 1 for i in batch.example_ids)])
    parts = {i: values[a:b] for i, a, b in zip(batch.example_ids, starts, starts[1:], strict=False)}
    return [parts[i] for i in range(len(examples))]


def probe_batch(token_ids: Sequence[int], layout: Layout) -> Batch:
    """The batch for the model: four short examples, all tokens except the first of each supervised."""
    return _batch(_examples(np.asarray(token_ids)), layout)


def _examples(known: IntArray) -> list[IntArray]:
    rng = np.random.default_rng(0)
    return [known[rng.integers(0, len(known), length)] for length in _LENGTHS]


def _batch(examples: Sequence[IntArray], layout: Layout) -> Batch:
    lengths = [len(ids) for ids in examples]
    mask = np.concatenate([np.arange(n) > 0 for n in lengths])
    pack = Pack(0, np.arange(len(examples)), np.concatenate(examples), mask, np.cumsum([0, *lengths]))
    return collate([pack]) if layout == "packed" else collate_rows([pack], len(lengths) * max(lengths))[0]


def _others(ids: IntArray, known: IntArray) -> IntArray:
    """Replace each token with another ordinary token."""
    at = np.searchsorted(known, ids)
    return known[(at + len(known) // 2) % len(known)]


def _gap(a: Tensor, b: Tensor) -> float:
    """The mean difference of a token's nll."""
    return float((a - b).abs().mean())
