"""What a device holds at each moment of a training step under ZeRO-3, and the moment at which it holds the most.

Parameters, gradients and optimizer state are split over the workers (Rajbhandari et al. 2020, "ZeRO: Memory
Optimizations Toward Training Trillion Parameter Models", section 5). The rest is how DeepSpeed 0.19 and our engine work
on them; it was read there, and measured (docs/BENCHMARKS.md). Only moments that can be the largest are looked at:

    end of the forward pass ──▶ head and loss ──▶ each layer backward ──▶ embeddings ──▶ last reduction ──▶ update
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sft.sizing.activations import backward_per_token, kept_per_token, norm_per_token
from sft.sizing.gathering import gathered_bytes, prefetch_bytes
from sft.sizing.model_shape import ModelShape
from sft.sizing.reduction import ReduceBucket
from sft.sizing.setting import Setting

_FLOAT32 = 4
OPTIMIZER_BYTES = 12
"""Of a parameter: its float32 copy and AdamW's two means."""
_LOSS_ARRAYS = 3
"""Float32 arrays of a chunk's logits: where the softmax gets its gradient, that, its result and the one it is given."""
_FIRST = ("embeddings", "positions")
"""The tensors that a model begins with."""


class States(NamedTuple):
    """A worker's part of what is split: bytes on its device."""

    parameters: int
    gradients: int
    """In float32, so that they can be summed over micro-batches."""
    optimizer: int


class Memory(NamedTuple):
    """Bytes that a device holds at one moment, by what they are for."""

    when: str
    states: States
    gathered: int = 0
    """Whole parameters that are in use, or will be soon."""
    reduction: int = 0
    """Whole gradients: in the bucket, before it, and while it is sent; and those of the update."""
    activations: int = 0
    logits: int = 0
    """Of one chunk, with the loss and its gradient."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.states) + self.gathered + self.reduction + self.activations + self.logits


def peak_memory(shape: ModelShape, setting: Setting) -> Memory:
    """The moment of a step at which the device holds the most. On CPUs the device is the worker's process."""
    return max(step_moments(shape, setting), key=lambda moment: moment.total)


def step_moments(shape: ModelShape, setting: Setting) -> Iterator[Memory]:
    """The moments of a step that may be its largest."""
    states, num_tokens, b = device_states(shape, setting), setting.num_tokens, setting.numbers.num_bytes
    kept = [num_tokens * kept_per_token(shape, layer, setting.numbers) for layer in shape.layers]
    inputs = [num_tokens * b * shape.hidden_size] * len(shape.layers)
    stored = inputs if setting.activation_checkpointing else kept
    # The last norm, and the hidden states of supervised positions: a full pack has no others.
    last = num_tokens * (norm_per_token(shape.structure.norm, shape.hidden_size, b) + b * shape.hidden_size)
    bucket_bytes = _bucket_bytes(shape, setting)
    at_head = Memory("", states, gathered_bytes(shape, setting, len(shape.layers)), bucket_bytes, sum(stored) + last)

    in_piece = at_head.gathered + prefetch_bytes(shape, setting)
    yield at_head._replace(when="end of the forward pass", gathered=in_piece)
    yield from _head_moments(shape, setting, at_head)
    bucket = ReduceBucket(setting)
    for size in _head_gradients(shape):
        bucket.add(size)
    # The gradient of a tied head waits, whole, for that of the embeddings.
    tied = b * shape.head_size if shape.is_tied else 0
    for i, layer in reversed(list(enumerate(shape.layers))):
        held = sum(stored[: i + 1]) + (kept[i] if setting.activation_checkpointing else 0)
        gathered, waiting = gathered_bytes(shape, setting, i), bucket_bytes + tied
        working = num_tokens * backward_per_token(shape, layer, b)
        yield Memory("backward pass of the layers", states, gathered, waiting + bucket.outside, held + working)
        taken = b * max(layer.tensors.values()) + max(bucket.add(size) for size in _gradients(layer.tensors))
        yield Memory("gradients of the layers", states, gathered, waiting + taken, held)
    taken = max(bucket.add(size) for name, size in shape.ends.items() if name in _FIRST)
    embeddings = b * shape.head_size
    # Of the embeddings: the parameters, their gradient, and that of a tied head.
    whole = embeddings if gathered_bytes(shape, setting, 0) else 0
    yield Memory("gradients of the embeddings", states, whole, bucket_bytes + tied + embeddings + taken)
    left = bucket.outside
    yield Memory("last gradients", states, whole, bucket_bytes + left + bucket.send())
    part = min(split(shape.num_parameters, setting.num_workers), setting.buckets.sub_group)
    yield Memory("update", states, 0, bucket_bytes + (_FLOAT32 * part if states.optimizer else 0))


def device_states(shape: ModelShape, setting: Setting) -> States:
    """A worker's part of parameters, gradients and optimizer state, without what lies in host memory."""
    on_gpu, part = setting.numbers.on_gpu, split(shape.num_parameters, setting.num_workers)
    parameters = 0 if on_gpu and setting.offload_parameters else setting.numbers.num_bytes * part
    if on_gpu and setting.offload_optimizer:
        return States(parameters, 0, 0)
    copies = 2 if setting.offload_optimizer else 1
    return States(parameters, copies * _FLOAT32 * part, OPTIMIZER_BYTES * part)


def offloaded_states(shape: ModelShape, setting: Setting) -> States:
    """A worker's part of what lies in host memory instead. Offloaded gradients are copied once more for the update."""
    part = split(shape.num_parameters, setting.num_workers)
    parameters = setting.numbers.num_bytes * part if setting.offload_parameters else 0
    if not setting.offload_optimizer:
        return States(parameters, 0, 0)
    return States(parameters, 2 * _FLOAT32 * part, OPTIMIZER_BYTES * part)


def split(num_elements: int, num_workers: int) -> int:
    """Elements of a worker's part."""
    return -(-num_elements // num_workers)


def _head_moments(shape: ModelShape, setting: Setting, at_head: Memory) -> Iterator[Memory]:
    """The loss of the last chunk, then the gradient of the head; that of the chunks before is beside them."""
    chunk = min(setting.logits_chunk_tokens, setting.num_tokens)
    logits, gradient = chunk * shape.vocab_size, setting.numbers.num_bytes * shape.head_size
    before = at_head.reduction + (gradient if setting.num_tokens > chunk else 0)
    yield at_head._replace(when="head and loss", reduction=before, logits=_LOSS_ARRAYS * _FLOAT32 * logits)
    given = setting.numbers.num_bytes * logits
    yield at_head._replace(when="gradient of the head", reduction=before + gradient, logits=given)


def _bucket_bytes(shape: ModelShape, setting: Setting) -> int:
    """On a GPU the whole bucket is allocated; of host memory only what was ever written to is taken."""
    if setting.numbers.on_gpu:
        return _FLOAT32 * setting.buckets.reduce
    bucket = ReduceBucket(setting)
    for size in _head_gradients(shape):
        bucket.add(size)
    for layer in reversed(shape.layers):
        for size in _gradients(layer.tensors):
            bucket.add(size)
    for name, size in shape.ends.items():
        if name in _FIRST:
            bucket.add(size)
    return _FLOAT32 * bucket.most_waiting


def _head_gradients(shape: ModelShape) -> list[int]:
    return [size for name, size in shape.ends.items() if name not in _FIRST]


def _gradients(tensors: Mapping[str, int]) -> list[int]:
    """Sizes in the order of the backward pass."""
    return list(tensors.values())[::-1]
