"""Which parameters are whole at a moment of the step, as DeepSpeed gathers them, keeps them and gives them back.

A module's parameters are gathered before it runs. Those of the modules behind it are gathered ahead, a bucket at a
time. A parameter is kept from its forward to its backward pass where not more than `reuse_distance` elements are used
in between; so a small model stays whole from the first layer on, and of a large one only the last layers do.
"""

from sft.sizing.model_shape import ModelShape
from sft.sizing.setting import Setting


def gathered_bytes(shape: ModelShape, setting: Setting, layer: int) -> int:
    """Bytes of whole parameters while `layer` runs backward; behind the last layer stands the head."""
    if not is_gathering(setting):
        return 0
    is_head = layer == len(shape.layers)
    in_use = shape.head_size if is_head else shape.layers[layer].num_parameters
    below = _size_below(shape, layer)
    stays = _staying(shape, setting, layer)
    # What is gathered ahead comes in one piece and is copied out of it.
    ahead = min(below - stays, 2 * setting.buckets.prefetch)
    tied = shape.head_size if shape.is_tied and not is_head else 0
    return setting.numbers.num_bytes * (in_use + stays + ahead + tied)


def prefetch_bytes(shape: ModelShape, setting: Setting) -> int:
    """Bytes of the piece in which the first parameters come; it is there until the last of them is used."""
    ahead = min(setting.buckets.prefetch, shape.num_parameters)
    return setting.numbers.num_bytes * ahead if is_gathering(setting) else 0


def is_gathering(setting: Setting) -> bool:
    """One worker uses its own part, which is the whole, unless that lies in host memory."""
    return setting.num_workers > 1 or (setting.numbers.on_gpu and setting.offload_parameters)


def num_gathered_again(shape: ModelShape, setting: Setting) -> int:
    """Elements that are gathered a second time, for the backward pass."""
    top = len(shape.layers)
    return _size_below(shape, top) - _staying(shape, setting, top)


def _size_below(shape: ModelShape, layer: int) -> int:
    """Elements that the backward pass comes to after `layer`."""
    ends = sum(shape.ends.values()) - shape.head_size
    return ends + sum(other.num_parameters for other in shape.layers[:layer])


def _staying(shape: ModelShape, setting: Setting, layer: int) -> int:
    """Of these, those that were kept since the forward pass."""
    # Until a layer's parameters are used again, those above it are used forward and backward, and where activations
    # are computed again once more; the head's are used twice.
    uses = 3 if setting.activation_checkpointing else 2
    from_the_top = (setting.buckets.reuse_distance - 2 * shape.head_size) // uses
    above = sum(other.num_parameters for other in shape.layers[layer:])
    return min(_size_below(shape, layer), max(0, from_the_top - above))
