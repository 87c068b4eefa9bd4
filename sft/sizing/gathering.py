"""Which parameters are whole at a moment of the step, as DeepSpeed gathers, keeps and releases them.

Every module that runs gathers the parameters of the next modules ahead, until `live_parameters` are whole. Parameters
that are whole already are kept for their next use, so at the end of the forward pass the last layers stay whole until
their backward pass. A small model is gathered once in a step; the rest of a large model is gathered twice.
"""

from sft.sizing.model_shape import ModelShape
from sft.sizing.setting import Setting


def gathered_bytes(shape: ModelShape, setting: Setting, layer: int) -> int:
    """Bytes of whole parameters while `layer` runs backward; the index after the last layer is the head."""
    if not is_gathering(setting):
        return 0
    is_head = layer == len(shape.layers)
    in_use = shape.head_size if is_head else shape.layers[layer].num_parameters
    below, most = _size_below(shape, layer), _most_whole(shape, setting)
    # What is gathered ahead comes in one piece, which stays until all of it is used.
    piece = min(setting.buckets.prefetch, most) if below > most else 0
    tied = shape.head_size if shape.is_tied and not is_head else 0
    return setting.numbers.num_bytes * (max(in_use, min(in_use + below, most)) + min(piece, below) + tied)


def prefetch_bytes(shape: ModelShape, setting: Setting) -> int:
    """Bytes of the first piece that is gathered; it stays until the last parameter in it is used."""
    ahead = min(setting.buckets.prefetch, shape.num_parameters)
    return setting.numbers.num_bytes * ahead if is_gathering(setting) else 0


def is_gathering(setting: Setting) -> bool:
    """Whether parameters are gathered. A single worker has the whole already, unless it is in host memory."""
    return setting.num_workers > 1 or (setting.numbers.on_gpu and setting.offload_parameters)


def num_gathered_again(shape: ModelShape, setting: Setting) -> int:
    """Elements that are gathered a second time, for the backward pass."""
    again = max(0, shape.num_parameters - max(shape.head_size, _most_whole(shape, setting)))
    # Tied embeddings are gathered three times: at the beginning, as the head, and at the end.
    return again + (shape.head_size if again and shape.is_tied else 0)


def _size_below(shape: ModelShape, layer: int) -> int:
    """Elements that the backward pass reaches after `layer`."""
    ends = sum(shape.ends.values()) - shape.head_size
    return ends + sum(other.num_parameters for other in shape.layers[:layer])


def _most_whole(shape: ModelShape, setting: Setting) -> int:
    """The most elements that are whole at the same time."""
    # Parameters that are used again before `reuse_distance` others stay whole, too. Until a layer is used again, the
    # layers above it are used twice, or three times with activation checkpointing; the head is used twice.
    uses = 3 if setting.activation_checkpointing else 2
    return max(setting.buckets.live, (setting.buckets.reuse_distance - 2 * shape.head_size) // uses)
