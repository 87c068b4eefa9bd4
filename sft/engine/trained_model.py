"""The model as an engine trains it: loaded, without or with its dropout, its activations kept or computed again."""

import torch

from sft.config import SftConfig
from sft.model.attention import attention_for, layout_of
from sft.model.dropout import turn_dropout_off
from sft.model.kernels import apply_kernels
from sft.model.loading import load_model
from sft.model.loss import SupervisedNll
from sft.model.recomputation import recompute_layers
from sft.model.sequence_parallel import SequenceGroup
from sft.progress import Tell


def load_trained(
    config: SftConfig,
    path: str,
    device: torch.device,
    zero_config: dict[str, object] | None = None,
    awaits_state: bool = False,
    tell: Tell = lambda: None,
    group: SequenceGroup | None = None,
) -> SupervisedNll:
    """The model at `path` with its loss, in training mode.

    Args:
        config: the run.
        path: the model's folder or id.
        device: where it will be trained.
        zero_config: DeepSpeed's config, to load it straight into shards.
        awaits_state: see `sft.engine.engines.BuildEngine`.
        tell: see `sft.model.loading.load_model`.
        group: the ranks that share its rows.
    """
    dtype = getattr(torch, config.model.dtype)
    attention = attention_for(layout_of(config.train.packing))
    model = load_model(config.model, path, dtype, zero_config or device, attention, awaits_state, tell)
    if config.model.dropout == "none":
        turn_dropout_off(model)
    apply_kernels(model, config.model, device)
    recompute_layers(model, config.train)
    model.train()
    return SupervisedNll(model, config.train.logits_chunk_tokens, group)
