"""What autograd keeps of a forward pass."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from sft.model.sequence_parallel import SequenceGroup, SplitRow


def kept_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of `forward`, or a layer to compute it again; no parameters, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = forward()
    assert made is not None
    return sum(storage.nbytes() for storage in kept.values())


def hidden_states(model: Any, num_tokens: int, segment_len: int, num_parts: int = 1) -> Tensor:
    """Those of a packed row of segments of one length; of a part of one, if there are several.

    The other parts are missing: what they would send is what is sent to them, which takes as many bytes.
    """
    bounds = torch.arange(0, num_parts * num_tokens + 1, segment_len, dtype=torch.int32)
    if num_parts > 1:
        made = model.base_model(
            input_ids=torch.arange(num_tokens)[None] % 100,
            position_ids=(torch.arange(num_tokens) % segment_len)[None],
            use_cache=False,
            split_row=SplitRow(SequenceGroup(0, num_parts, torch.clone), bounds, segment_len),
        )
        return cast(Tensor, made.last_hidden_state)
    made = model.base_model(
        input_ids=torch.arange(num_tokens)[None] % 100,
        position_ids=(torch.arange(num_tokens) % segment_len)[None],
        use_cache=False,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=segment_len,
        max_length_k=segment_len,
    )
    return cast(Tensor, made.last_hidden_state)
