"""How examples are laid out for a model, decided on a tiny model of its class, without holding a machine for it."""

import copy
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sft.config import ModelConfig
from sft.data.collate import Batch, Layout
from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.errors import UserError
from sft.model.attention import PACKED_ATTENTION, attention_for, layout_of
from sft.model.dropout import turn_dropout_off
from sft.model.loss import SupervisedNll
from sft.model.packing_probe import ordinary_token_ids, probe_batch, probe_layout
from sft.model.sharing import cannot_share, check_sharing
from sft.model.text_path import frozen_parameters
from sft.model.tiny_model import CannotTryError, config_to_try, reason_of, tiny_config, tiny_model

IN_WORDS: dict[Layout, str] = {"packed": "packed", "one_example": "one example a row"}


class LayoutChoice(NamedTuple):
    """The layout of a run, and why it is not packed, or what could not be found out."""

    layout: Layout
    reason: str | None = None


def choose_layout(model: ModelConfig, packing: str, max_len_tokens: int, sequence_parallel: int = 1) -> LayoutChoice:
    """The layout that `train.packing` asks for; under `auto`, the first of the two in which the model is correct.

    Args:
        model: the model.
        packing: `train.packing`.
        max_len_tokens: the longest example.
        sequence_parallel: how many ranks share a row, which must be packed then.

    Raises:
        UserError: the model is not correct in that layout; the message says how this shows, and what to do.
    """
    asked = layout_of(packing)
    options = {"trust_remote_code": True} if model.trust_remote_code else {}
    try:
        config = config_to_try(model)
        _refuse_moving_positions(config.get_text_config(), max_len_tokens)
        check_sharing(model, sequence_parallel)
        reason = try_layout(config, asked, model.dropout, **options)
        if reason is not None and sequence_parallel > 1:
            raise UserError(cannot_share(config.model_type, sequence_parallel, reason))
        if reason is None:
            return LayoutChoice(asked)
        other = try_layout(config, "one_example", model.dropout, **options) if asked == "packed" else reason
    except CannotTryError as error:
        return LayoutChoice(asked, f"it could not be tried on a tiny model ({error}): the run tries it at its start")
    if packing == "auto" and other is None:
        return LayoutChoice("one_example", reason)
    what = f"model: {config.model_type} cannot be trained"
    if other is None:
        raise UserError(f"{what} packed: {reason}. Set train.packing=auto or train.packing=one_example.")
    if other == reason:
        raise UserError(f"{what}: {reason}. Choose another model.")
    raise UserError(f"{what}. Packed: {reason}. One example a row: {other}. Choose another model.")


def _refuse_moving_positions(config: Any, max_len_tokens: int) -> None:
    """Refuse models that change the positions of a whole batch when one example in it is long.

    Raises:
        UserError: examples may be long enough for that.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    sections = [part for part in parameters.values() if isinstance(part, dict)] or [parameters]
    for rope in sections:
        kind, table = rope.get("rope_type"), getattr(config, "max_position_embeddings", None)
        longest = rope.get("original_max_position_embeddings") or table
        if kind in ("dynamic", "longrope") and longest is not None and max_len_tokens > longest:
            raise UserError(
                f"data.max_len_tokens: {max_len_tokens} is more than {longest}, above which this model's positions "
                f"(`rope_type: {kind}`) depend on the longest example of a batch: a long one would change the others. "
                f"Set it to {longest} or less."
            )


def try_layout(config: Any, layout: Layout, dropout: str = "none", **options: Any) -> str | None:
    """What is wrong with a layout for models of the class of `config`, tried on a tiny one; None where it is correct.

    Raises:
        CannotTryError: no tiny model can be made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _try_quietly(config, layout, dropout, options)


def _try_quietly(config: Any, layout: Layout, dropout: str, options: dict[str, Any]) -> str | None:
    try:
        small = tiny_config(config)
        plain = tiny_model(small, attention_for("one_example"), **options)
        frozen = frozen_parameters(copy.deepcopy(plain).to("meta"))
        module = SupervisedNll(plain, chunk_tokens=64)
    except UserError as error:
        return reason_of(error)
    except RAISED_BY_CODE as error:
        raise CannotTryError(reason_of(error)) from error
    try:
        if layout == "packed":
            module = SupervisedNll(tiny_model(small, PACKED_ATTENTION, **options), chunk_tokens=64)
        return _try(module, frozen, small, layout, dropout)
    except CannotTryError:
        raise
    except RAISED_BY_CODE as error:
        # A class that is not made for the layout may fail in any way.
        return reason_of(error)


def _try(module: SupervisedNll, frozen: frozenset[str], config: Any, layout: Layout, dropout: str) -> str | None:
    def nll(batch: Batch, by_own_forward: bool) -> Tensor:
        module.train(not by_own_forward and dropout == "none")
        try:
            with torch.no_grad():
                nll_S: Tensor = module(batch, by_own_forward)
            return nll_S
        except RAISED_BY_CODE as error:
            if by_own_forward:
                raise CannotTryError(reason_of(error)) from error
            raise

    if dropout == "none":
        turn_dropout_off(module)
    token_ids = ordinary_token_ids(config)
    wrong = probe_layout(nll, token_ids, layout, torch.float32)
    if wrong is not None:
        return wrong
    # Every parameter must also get a gradient in every step: the ranks exchange the gradients of all parameters.
    module.train()
    module(probe_batch(token_ids, layout)).sum().backward()
    gradients = {name: p.grad for name, p in module.model.named_parameters() if name not in frozen}
    if not any(grad is not None and bool(grad.any()) for grad in gradients.values()):
        return "its loss has no gradient"
    unused = [name for name, grad in gradients.items() if grad is None]
    return f"{unused[0]} has no part in the loss of short examples" if unused else None
