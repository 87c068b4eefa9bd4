"""Whether ranks can share the rows of a model (`train.sequence_parallel`): checked before anything waits for anything.

    its heads of attention     can be divided among so many ranks, in every layer
    all its other layers       look at no other token: tried on a tiny model, in parts (`split_probe`)

Whoever is about to train calls this, in every attempt: a run may go on with another number. What is not known from the
files is checked on the real model, on all ranks alike (`sft.training.layout`). How many ranks there are is checked
where they are counted: in the config, by torchrun's entry, and at the start of an attempt.
"""

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from sft.config import ModelConfig
from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.errors import UserError
from sft.model.architecture import auto_class
from sft.model.attention import PACKED_ATTENTION
from sft.model.attention_heads import attention_heads
from sft.model.dropout import turn_dropout_off
from sft.model.loss import SupervisedNll
from sft.model.packing_probe import ordinary_token_ids, probe_layout
from sft.model.split_heads import why_not_divisible
from sft.model.split_probe import NUM_PARTS, nll_in_parts
from sft.model.tiny_model import CannotTryError, config_to_try, reason_of, tiny_config, tiny_model


def check_sharing(model: ModelConfig, num_ranks: int) -> None:
    """Refuse a model whose rows so many ranks cannot share; one rank shares none.

    Raises:
        UserError: the message says why, and what can be.
        CannotTryError: it cannot be tried on a tiny model; nothing is known against it.
    """
    if num_ranks == 1:
        return
    options = {"trust_remote_code": True} if model.trust_remote_code else {}
    config = config_to_try(model)
    # First, because it is known even where nothing can be tried.
    refuse_heads(heads_of(config, **options), num_ranks)
    if (wrong := try_split(config, **options)) is not None:
        raise UserError(cannot_share(config.model_type, num_ranks, wrong))


def cannot_share(what: str, num_ranks: int, reason: str) -> str:
    """Why a model is refused, whose rows ranks cannot share."""
    return f"train.sequence_parallel: {num_ranks}: workers cannot share the rows of {what}: {reason}. Set it to 1."


def refuse_heads(heads: Iterable[tuple[int, int]], num_ranks: int) -> None:
    """Refuse heads of attention that cannot be divided among so many ranks: (of queries, of keys) of each layer.

    Raises:
        UserError: the message says among how many they can be.
    """
    if (why := why_not_divisible(sorted(heads), num_ranks)) is not None:
        raise UserError(f"train.sequence_parallel: {num_ranks}: {why}.")


def heads_of(config: Any, **options: Any) -> list[tuple[int, int]]:
    """Those of each kind of layer, as far as they can be seen without weights (see `attention_heads`)."""
    own = copy.deepcopy(config)
    try:
        with torch.device("meta"):
            return attention_heads(auto_class(own).from_config(own, **options))
    except RAISED_BY_CODE:  # loading the model reports it
        return []


def try_split(config: Any, **options: Any) -> str | None:
    """What is wrong if ranks share rows of models of the class of `config`, tried on a tiny one; None: nothing.

    Raises:
        CannotTryError: no tiny model can be made or split.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            small = tiny_config(config)
            why = why_not_divisible(heads_of(small, **options), NUM_PARTS)
            module = SupervisedNll(tiny_model(small, PACKED_ATTENTION, **options), chunk_tokens=64)
        except RAISED_BY_CODE as error:
            raise CannotTryError(reason_of(error)) from error
        if why is not None:
            raise CannotTryError(f"its small form has {why}")
        turn_dropout_off(module)
        try:
            return probe_layout(nll_in_parts(module, NUM_PARTS), ordinary_token_ids(small), "packed", torch.float32)
        except RAISED_BY_CODE as error:
            return reason_of(error)
