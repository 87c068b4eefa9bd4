"""What a device holds at each moment of a training step, and the moment when it holds the most.

Parameters, gradients and optimizer state are split over the workers (Rajbhandari et al. 2020, "ZeRO: Memory
Optimizations Toward Training Trillion Parameter Models", section 5). The rest follows from how DeepSpeed 0.19 and our
engine work; it comes from their source, and was measured (docs/BENCHMARKS.md). Only moments that can be the largest
count:

    end of the forward pass ──▶ head and loss ──▶ each layer backward ──▶ embeddings ──▶ last reduction ──▶ update
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sft.model.logit_blocks import block_rows
from sft.sizing.activations import backward_per_token, kept_per_token, norm_per_token
from sft.sizing.gathering import gathered_bytes, is_gathering, prefetch_bytes
from sft.sizing.model_shape import ModelShape
from sft.sizing.reduction import ReduceBucket
from sft.sizing.setting import Setting

_FLOAT32 = 4
_LOSS_ARRAYS = 2
"""Float32 arrays of the size of a block of logits when the head makes their gradient: its copy of them and the softmax;
one more where the model bends its logits."""
_FIRST = ("embeddings", "positions")
"""The tensors that a model begins with."""


class States(NamedTuple):
    """A worker's part of the split states: bytes on its device."""

    parameters: int
    """Including its part of a copy that some workers share (hpZ)."""
    gradients: int
    """In float32, so that they can be summed over micro-batches. None where the only micro-batch's are the step's."""
    optimizer: int


class Memory(NamedTuple):
    """Bytes that a device holds at one moment, by purpose."""

    when: str
    states: States
    gathered: int = 0
    """Whole parameters that are in use, or will be soon."""
    reduction: int = 0
    """Whole gradients: in the bucket, before it, and while it is sent; and gradients of the update."""
    activations: int = 0
    logits: int = 0
    """Logits of one chunk, and a block of them in float32."""

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.states) + self.gathered + self.reduction + self.activations + self.logits


def peak_memory(shape: ModelShape, setting: Setting) -> Memory:
    """The moment of a step at which the device holds the most. On CPUs, the device is the worker's process."""
    return max(step_moments(shape, setting), key=lambda moment: moment.total)


def step_moments(shape: ModelShape, setting: Setting) -> Iterator[Memory]:
    """The moments of a step that may be its largest."""
    always = Memory("always", device_states(shape, setting), reduction=_bucket_bytes(shape, setting))
    yield from _forward_moments(shape, setting, always)
    bucket = ReduceBucket(setting)
    for size in _head_gradients(shape):
        bucket.add(size)
    yield from _layer_moments(shape, setting, always, bucket)
    yield from _last_moments(shape, setting, always, bucket)


def device_states(shape: ModelShape, setting: Setting) -> States:
    """A worker's part of parameters, gradients and optimizer state, without what is in host memory."""
    on_gpu, part = setting.numbers.on_gpu, split(shape.num_parameters, setting.num_workers)
    parameters = 0 if on_gpu and setting.offload_parameters else _parameter_bytes(shape, setting)
    if on_gpu and setting.offload_optimizer:
        return States(parameters, 0, 0)
    copies, optimizer_bytes = 2 if setting.offload_optimizer else 1, setting.optimizer_bytes
    if setting.is_own_master:
        optimizer_bytes -= _FLOAT32
        copies -= setting.is_one_micro_batch
    return States(parameters, copies * _FLOAT32 * part, optimizer_bytes * part)


def offloaded_states(shape: ModelShape, setting: Setting) -> States:
    """A worker's part of what is in host memory instead. Offloaded gradients are copied once more for the update."""
    part = split(shape.num_parameters, setting.num_workers)
    parameters = _parameter_bytes(shape, setting) if setting.offload_parameters else 0
    if not setting.offload_optimizer:
        return States(parameters, 0, 0)
    return States(parameters, 2 * _FLOAT32 * part, setting.optimizer_bytes * part)


def offloaded_activations(shape: ModelShape, setting: Setting) -> int:
    """Bytes of the inputs of recomputed layers that wait in host memory."""
    num_layers = len(setting.recomputed(len(shape.layers)))
    return num_layers * _input_bytes(shape, setting) if setting.offload_activations else 0


def _parameter_bytes(shape: ModelShape, setting: Setting) -> int:
    """A worker's part of the parameters, and of the copy that it shares with other workers."""
    copied = split(shape.num_held, setting.num_copy_ranks) if setting.num_copy_ranks > 1 else 0
    return setting.numbers.num_bytes * (split(shape.num_held, setting.num_workers) + copied)


def split(num_elements: int, num_workers: int) -> int:
    """Elements of a worker's part."""
    return -(-num_elements // num_workers)


def _forward_moments(shape: ModelShape, setting: Setting, always: Memory) -> Iterator[Memory]:
    """The end of the forward pass, and the head's turn: the logits of its last chunk, then its gradient."""
    b, num_tokens = setting.numbers.num_bytes, setting.num_tokens
    # The last norm, and the hidden states of supervised positions: in a full pack these are all.
    last = num_tokens * (
        norm_per_token(shape.structure.norm, shape.hidden_size, setting.numbers) + b * shape.hidden_size
    )
    gathered, held = gathered_bytes(shape, setting, len(shape.layers)), sum(_stored(shape, setting)) + last
    at_head = always._replace(gathered=gathered, activations=held)
    yield at_head._replace(when="end of the forward pass", gathered=gathered + prefetch_bytes(shape, setting))
    chunk, gradient = min(setting.logits_chunk_tokens, num_tokens), b * shape.head_size
    # Gradients of several chunks are added up in float32, and made narrow at the end.
    total = gradient if num_tokens <= chunk else _FLOAT32 * shape.head_size
    block = min(chunk, block_rows(shape.vocab_size, setting.numbers.on_gpu))
    logits = shape.vocab_size * (chunk * b + block * _LOSS_ARRAYS * _FLOAT32)
    # With the gradient of the hidden states.
    at_head = at_head._replace(activations=held + num_tokens * b * shape.hidden_size)
    yield at_head._replace(when="head and loss", reduction=always.reduction + total, logits=logits)
    both = total if total == gradient else total + gradient
    yield at_head._replace(when="gradient of the head", reduction=always.reduction + both)


def _layer_moments(shape: ModelShape, setting: Setting, always: Memory, bucket: ReduceBucket) -> Iterator[Memory]:
    """The backward pass of each layer, from the last on."""
    numbers, num_tokens, stored = setting.numbers, setting.num_tokens, _stored(shape, setting)
    b, recomputed = numbers.num_bytes, setting.recomputed(len(shape.layers))
    # The whole gradient of a tied head waits for that of the embeddings.
    waiting = always.reduction + (b * shape.head_size if shape.is_tied else 0)
    for i, layer in reversed(list(enumerate(shape.layers))):
        held = sum(stored[: i + 1])
        if i in recomputed:
            # Its input is there, too, wherever it was kept.
            held += _input_bytes(shape, setting) if setting.offload_activations else 0
            held += num_tokens * kept_per_token(shape, layer, numbers)
        here = always._replace(gathered=gathered_bytes(shape, setting, i), reduction=waiting, activations=held)
        working = num_tokens * backward_per_token(shape, layer, numbers)
        reduction = waiting + bucket.outside
        yield here._replace(when="backward pass of the layers", reduction=reduction, activations=held + working)
        taken = b * max(layer.tensors.values()) + max(bucket.add(size) for size in _gradients(layer.tensors))
        yield here._replace(when="gradients of the layers", reduction=waiting + taken)


def _last_moments(shape: ModelShape, setting: Setting, always: Memory, bucket: ReduceBucket) -> Iterator[Memory]:
    """The gradients of the embeddings, the last reduction, the update."""
    embeddings, held = setting.numbers.num_bytes * shape.head_size, always.reduction
    taken = max(bucket.add(size) for name, size in shape.ends.items() if name in _FIRST)
    made = embeddings * (2 if shape.is_tied else 1)
    whole = always._replace(gathered=embeddings if is_gathering(setting) else 0)
    yield whole._replace(when="gradients of the embeddings", reduction=held + made + taken)
    yield whole._replace(when="last gradients", reduction=held + bucket.outside + bucket.send())
    part = min(split(shape.num_parameters, setting.num_workers), setting.buckets.sub_group)
    # The gradients for the update are copied into one piece.
    is_copied = always.states.optimizer and not setting.is_plain
    copied = _FLOAT32 * part if is_copied else 0
    waiting = bucket.outside if setting.is_own_master else 0
    yield always._replace(when="update", reduction=held + copied + waiting)


def _stored(shape: ModelShape, setting: Setting) -> list[int]:
    """Bytes that each layer keeps from its forward to its backward pass."""
    recomputed = setting.recomputed(len(shape.layers))
    of_input = 0 if setting.offload_activations else _input_bytes(shape, setting)
    return [
        of_input if i in recomputed else setting.num_tokens * kept_per_token(shape, layer, setting.numbers)
        for i, layer in enumerate(shape.layers)
    ]


def _input_bytes(shape: ModelShape, setting: Setting) -> int:
    return setting.num_tokens * setting.numbers.num_bytes * shape.hidden_size


def _bucket_bytes(shape: ModelShape, setting: Setting) -> int:
    """On a GPU the whole bucket is allocated; in host memory only what was ever written counts."""
    if setting.is_plain:
        return 0
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
