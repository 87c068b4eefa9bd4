"""Settles how examples are laid out for the model, the same on all ranks and in all attempts, and tests it.

The first rank decides, on a tiny model, and records the decision; once the run has trained, the record counts. Before
each stage, the decision is tested on the real model under its engine: a model that is wrong is not trained.
"""

import json
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sft.atomic_files import read_json, write_json
from sft.config import ModelConfig, SftConfig
from sft.data.collate import Batch, Layout
from sft.data.sequence_parts import is_own_target, part_of
from sft.engine.engine import Engine
from sft.errors import UserError
from sft.model.attention import layout_of, other_rounding
from sft.model.attention_heads import heads_seen
from sft.model.layout import IN_WORDS, LayoutChoice, choose_layout
from sft.model.packing_probe import TokenNll, ordinary_token_ids, probe_batch, probe_layout
from sft.model.sharing import cannot_share, check_sharing, refuse_heads
from sft.model.tiny_model import CannotTryError
from sft.ranks.agreement import raise_together
from sft.ranks.ranks import Ranks
from sft.run_events import EventLog
from sft.run_folder import RunFolder


def settle_layout(config: SftConfig, ranks: Ranks, events: EventLog) -> SftConfig:
    """The config with `train.packing` settled. All ranks call this together.

    Raises:
        UserError: on all ranks: the model is wrong in the layout that is asked for, or in every layout.
    """
    is_first = ranks.world.is_first
    decided: dict[str, Any] = json.loads(ranks.gather(json.dumps(_decide(config)) if is_first else "")[0])
    if "error" in decided:
        raise UserError(decided["error"], is_everywhere=True)
    if is_first and decided != LayoutChoice("packed")._asdict():
        why = f", because {decided['reason']}" if decided["reason"] else ""
        events.add("layout", f"{IN_WORDS[decided['layout']]}{why}", **decided)
    return config.model_copy(update={"train": config.train.model_copy(update={"packing": decided["layout"]})})


def _decide(config: SftConfig) -> dict[str, Any]:
    run, shared = RunFolder(config.run.dir), config.train.sequence_parallel
    try:
        if run.layout.is_file() and run.has_trained():
            recorded: dict[str, Any] = read_json(run.layout)
            _check_recorded(config.model, recorded["layout"], shared)
            return recorded
        choice = choose_layout(config.model, config.train.packing, config.data.max_len_tokens, shared)
    except UserError as error:
        return {"error": str(error)}
    write_json(run.layout, choice._asdict())
    return choice._asdict()


def _check_recorded(model: ModelConfig, layout: Layout, shared: int) -> None:
    """Refuse a number of ranks to a row that this run cannot have; it may have had another one before."""
    if shared > 1 and layout != "packed":
        raise UserError(cannot_share("this run", shared, f"it has {IN_WORDS[layout]}"))
    with suppress(CannotTryError):  # the real model is tried
        check_sharing(model, shared)


def try_layout(engine: Engine, config: SftConfig) -> None:
    """Refuse a model that is wrong in its layout. All ranks call this together, with a settled config.

    Raises:
        UserError: on all ranks.
    """
    layout = layout_of(config.train.packing)
    if config.train.sequence_parallel > 1:
        _check_heads(engine, config.train.sequence_parallel)
    try:
        token_ids = ordinary_token_ids(engine.hf_model.config)
        rounding = partial(other_rounding, engine.hf_model, layout)
        wrong = probe_layout(_nll_of(engine), token_ids, layout, getattr(torch, config.model.dtype), rounding)
    except UserError as error:
        wrong = str(error).removeprefix("model: ")
    message = None
    if wrong is not None:
        instead = "train.packing=one_example and a new run.dir" if layout == "packed" else "another model"
        if config.train.sequence_parallel > 1:
            instead = f"train.sequence_parallel=1 if it is right then, or {instead}"
        message = (
            f"model: tried on a few short examples, {type(engine.hf_model).__name__} is not right with its examples "
            f"{IN_WORDS[layout]}: {wrong}. Nothing was trained. Use {instead}."
        )
    raise_together(engine.ranks, message)


def _check_heads(engine: Engine, num_ranks: int) -> None:
    """Refuse heads that cannot be divided: all ranks see them in a whole row, before any exchanges a part of one.

    Those of a group would find it in the middle of the model, where ranks without a group go on and wait for them.

    Raises:
        UserError: on all ranks.
    """
    message = None
    try:
        with heads_seen(engine.hf_model) as heads:
            engine.token_nll(probe_batch(ordinary_token_ids(engine.hf_model.config), "packed"))
        refuse_heads(heads, num_ranks)
    except UserError as error:
        message = str(error)
    raise_together(engine.ranks, message)


def _nll_of(engine: Engine) -> TokenNll:
    """`TokenNll` of the engine: ranks that share rows run packed ones in parts, as in training."""
    world = engine.ranks.world
    if world.sequence_parallel == 1:
        return engine.token_nll

    def nll(batch: Batch, by_own_forward: bool) -> Tensor:
        if by_own_forward:
            return engine.token_nll(batch, True)
        place, num_parts = world.sequence_place, world.num_parts
        # A row for each group: each judges what its own ranks computed.
        values, message = torch.zeros(world.data_size + 1, len(batch.targets_S), dtype=torch.float64), None
        try:
            own = engine.token_nll(part_of(batch, place, num_parts)).double()
            values[world.data_rank, is_own_target(batch, place, num_parts)] = own
        except UserError as error:
            message = str(error)
        raise_together(engine.ranks, message)  # a rank without a group has nothing to refuse
        return engine.ranks.sum(values)[world.data_rank]

    return nll
