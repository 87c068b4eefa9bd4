"""What a device holds at each moment of a training step under ZeRO-3, and the moment at which it holds the most.

The states are those of Rajbhandari et al. 2020 ("ZeRO", sections 3 and 5), each split over the workers; the rest is
how DeepSpeed 0.19 and our engine hold them: gradients in float32, parameters that stay gathered until their next use,
gradients that wait in a bucket and are copied when it is sent. A step is gone through from its middle to its end:

    forward pass: gather ahead ──▶ head and loss ──▶ backward pass, from the last layer to the first ──▶ update
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from sft.config import SftConfig
from sft.engine.zero3_config import build_zero3_config
from sft.sizing.activations import Numbers, backward_per_token, kept_per_token, norm_per_token
from sft.sizing.model_shape import Layer, ModelShape

_FLOAT32 = 4
_OPTIMIZER_BYTES = 12
"""Of a parameter: its float32 copy and AdamW's two means."""
_LOGITS_COPIES = 3
"""Float32 arrays of a chunk's logits: when the gradient of the softmax is made, it, its argument and the softmax."""
_FIRST = ("embeddings", "positions")
"""The tensors that a model begins with."""


class Buckets(NamedTuple):
    """DeepSpeed's limits, in elements."""

    reduce: int
    """Gradients that wait to be reduced together."""
    prefetch: int
    """Parameters that are gathered before they are needed."""
    reuse_distance: int
    """Parameters that are used again within so many are not given back."""
    sub_group: int
    """Parameters of a worker that are updated together."""

    @classmethod
    def of(cls, config: SftConfig) -> Self:
        """Those of the engine, with the config's `deepspeed.extra`; else DeepSpeed's defaults."""
        zero: Mapping[str, Any] = build_zero3_config(config, 1.0, on_cuda=True)["zero_optimization"]
        return cls(
            int(zero["reduce_bucket_size"]),
            int(zero["stage3_prefetch_bucket_size"]),
            int(zero.get("stage3_max_reuse_distance", 1e9)),
            int(zero.get("sub_group_size", 1e9)),
        )


class Setting(NamedTuple):
    """What memory depends on besides the model."""

    num_workers: int
    num_tokens: int
    """Of a micro-batch of full packs."""
    numbers: Numbers
    activation_checkpointing: bool
    logits_chunk_tokens: int
    offload_optimizer: bool
    offload_parameters: bool
    copies_checkpoint: bool
    """A checkpoint is written from a copy in host memory."""
    buckets: Buckets

    @classmethod
    def of(cls, config: SftConfig, stage: int, num_workers: int, on_gpu: bool) -> Self:
        """That of a stage of the config, with so many workers."""
        train = config.train
        packs = min(train.micro_packs, math.ceil(train.packs_per_step / num_workers))
        return cls(
            num_workers,
            packs * config.pack_len_tokens(stage),
            Numbers(2 if config.model.dtype == "bfloat16" else 4, on_gpu),
            train.activation_checkpointing,
            train.logits_chunk_tokens,
            config.deepspeed.offload_optimizer == "cpu",
            config.deepspeed.offload_parameters == "cpu",
            config.checkpoint.async_ or on_gpu,
            Buckets.of(config),
        )


class Memory(NamedTuple):
    """Bytes that a device holds at one moment, by what they are for."""

    when: str
    parameters: int
    """This worker's part of them."""
    gradients: int
    """This worker's part of them, in float32."""
    optimizer: int
    """This worker's part of the float32 copy and the two means."""
    gathered: int
    """Whole parameters that are in use, or will be soon."""
    reduction: int
    """Whole gradients: in the bucket, before it and while it is sent."""
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self[1:])


def peak_memory(shape: ModelShape, setting: Setting) -> Memory:
    """The moment of a step at which the device holds the most. On CPUs the device is the worker's process."""
    return max(step_moments(shape, setting), key=lambda moment: moment.total)


def step_moments(shape: ModelShape, setting: Setting) -> Iterator[Memory]:
    """The moments of a step that may be its largest."""
    return _Step(shape, setting).moments()


def split(num_elements: int, num_workers: int) -> int:
    """Elements of a worker's part."""
    return -(-num_elements // num_workers)


class _Bucket:
    """Gradients on their way: they wait until the next one does not fit, and are then sent together.

    One that is larger than the bucket waits alone, outside of it, in the dtype that it was made in.
    """

    def __init__(self, setting: Setting) -> None:
        self._limit = setting.buckets.reduce
        self._made_bytes = setting.numbers.num_bytes
        # gloo sends a copy of what it is given.
        self._sent_copies = 1 if setting.numbers.on_gpu else 2
        self.waiting = 0
        self.largest = 0

    @property
    def outside(self) -> int:
        """Bytes of a waiting gradient that is too large for the bucket."""
        return self._made_bytes * self.waiting if self.waiting > self._limit else 0

    def add(self, size: int) -> int:
        """Take a gradient of `size` elements; returns the bytes that are needed for a moment."""
        needed = self.outside
        if self.waiting and self.waiting + size > self._limit:
            needed += self.send()
        self.waiting += size
        if self.waiting <= self._limit:
            self.largest = max(self.largest, self.waiting)
        return needed

    def send(self) -> int:
        """Send what is waiting; returns the bytes that are needed for a moment."""
        size, self.waiting = self.waiting, 0
        if size > self._limit and self._made_bytes == _FLOAT32:
            # It is sent as it is.
            return _FLOAT32 * size * (self._sent_copies - 1)
        return _FLOAT32 * size * self._sent_copies


class _Step:
    """A step on one device, moment by moment."""

    def __init__(self, shape: ModelShape, setting: Setting) -> None:
        self.shape, self.setting = shape, setting
        self.b = setting.numbers.num_bytes
        on_gpu, size = setting.numbers.on_gpu, split(shape.num_parameters, setting.num_workers)
        # On CPUs device and host are the same: what is offloaded stays.
        self.parameters = 0 if on_gpu and setting.offload_parameters else self.b * size
        keeps_optimizer = not (on_gpu and setting.offload_optimizer)
        self.gradients = _FLOAT32 * size if keeps_optimizer else 0
        self.optimizer = _OPTIMIZER_BYTES * size if keeps_optimizer else 0
        # Offloaded gradients have a second buffer, where they wait for the update.
        if setting.offload_optimizer and not on_gpu:
            self.gradients *= 2
        # With one worker the parameters in use are its own part of them.
        self.gathers = setting.num_workers > 1 or (on_gpu and setting.offload_parameters)
        self.kept = [setting.num_tokens * kept_per_token(shape, layer, setting.numbers) for layer in shape.layers]
        self.inputs = [setting.num_tokens * self.b * shape.hidden_size] * len(shape.layers)
        self.bucket_bytes = self._bucket_bytes()

    def moments(self) -> Iterator[Memory]:
        shape, setting = self.shape, self.setting
        stored = self.inputs if setting.activation_checkpointing else self.kept
        width = norm_per_token(shape.structure.norm, shape.hidden_size, self.b) + 2 * self.b * shape.hidden_size
        final = setting.num_tokens * width
        yield self._moment("first layers: parameters gathered ahead", gathered=self._gathered_at_start())
        yield from self._head_moments(sum(stored) + final)
        bucket = _Bucket(setting)
        for size in self._head_sizes():
            bucket.add(size)
        # A tied gradient waits, whole, for the part of the embeddings.
        tied = self.b * shape.head_size if shape.is_tied else 0
        for i, layer in reversed(list(enumerate(shape.layers))):
            activations = sum(stored[: i + 1]) + (self.kept[i] if setting.activation_checkpointing else 0)
            backward = setting.num_tokens * backward_per_token(shape, layer, self.b)
            yield self._moment(
                f"backward pass of layer {i + 1}",
                gathered=self._gathered(i),
                reduction=tied + bucket.outside,
                activations=activations + backward,
            )
            needed = max(bucket.add(size) for size in reversed(layer.tensors.values()))
            yield self._moment(
                f"gradients of layer {i + 1}",
                gathered=self._gathered(i),
                reduction=tied + self.b * max(layer.tensors.values()) + needed,
                activations=activations,
            )
        needed = max(bucket.add(size) for size in self._embedding_sizes())
        yield self._moment("gradients of the embeddings", reduction=tied + self.b * shape.head_size + needed)
        left = bucket.outside
        yield self._moment("last gradients", reduction=left + bucket.send())
        part = min(split(shape.num_parameters, setting.num_workers), setting.buckets.sub_group)
        yield self._moment("update", reduction=_FLOAT32 * part if self.optimizer else 0)

    def _head_moments(self, activations: int) -> Iterator[Memory]:
        """The loss of the last chunk: its logits, then the gradient of the head, that of the chunks before beside it."""
        shape, setting = self.shape, self.setting
        chunk = min(setting.logits_chunk_tokens, setting.num_tokens)
        gathered, gradient = self._gathered(len(shape.layers)), self.b * shape.head_size
        before = gradient if setting.num_tokens > chunk else 0
        for when, num_bytes, made in (
            ("head and loss", _LOGITS_COPIES * _FLOAT32, before),
            ("gradient of the head", self.b, before + gradient),
        ):
            logits = num_bytes * chunk * shape.vocab_size
            yield self._moment(when, gathered, reduction=made, activations=activations, logits=logits)

    def _head_sizes(self) -> list[int]:
        return [size for name, size in self.shape.ends.items() if name not in _FIRST]

    def _embedding_sizes(self) -> list[int]:
        return [size for name, size in self.shape.ends.items() if name in _FIRST]

    def _moment(
        self, when: str, gathered: int = 0, reduction: int = 0, activations: int = 0, logits: int = 0
    ) -> Memory:
        states = self.parameters, self.gradients, self.optimizer
        return Memory(when, *states, gathered, self.bucket_bytes + reduction, activations, logits)

    def _bucket_bytes(self) -> int:
        """On a GPU the whole bucket is allocated; of host memory only what was ever written to is taken."""
        if self.setting.numbers.on_gpu:
            return _FLOAT32 * self.setting.buckets.reduce
        bucket = _Bucket(self.setting)
        layers = [size for layer in reversed(self.shape.layers) for size in reversed(layer.tensors.values())]
        for size in (*self._head_sizes(), *layers, *self._embedding_sizes()):
            bucket.add(size)
        return _FLOAT32 * bucket.largest

    def _gathered_at_start(self) -> int:
        """A bucket of parameters is gathered ahead in one piece, and then copied parameter by parameter."""
        ahead = min(self.setting.buckets.prefetch, self.shape.num_parameters)
        copies = 2 if self.setting.numbers.on_gpu else 3  # gloo's own copy
        return self.b * copies * ahead if self.gathers else 0

    def _gathered(self, layer: int) -> int:
        """While `layer` runs backward; that behind the last is the head, in whose turn the backward pass begins."""
        if not self.gathers:
            return 0
        layers, buckets, head = self.shape.layers, self.setting.buckets, self.shape.head_size
        below = sum(_size(other) for other in layers[:layer])
        above = sum(_size(other) for other in layers[layer:])
        at_head = layer == len(layers)
        in_use = head if at_head else _size(layers[layer])
        # A tied head is needed again, for the embeddings.
        ends = sum(self.shape.ends.values()) - (0 if self.shape.is_tied and not at_head else head)
        # A layer's parameters are used again after those above it were, forward and backward. Where the activations
        # are computed again, that is once more.
        uses = 3 if self.setting.activation_checkpointing else 2
        kept = max(0, (buckets.reuse_distance - 2 * head) // uses - above)
        stays = min(below + ends, kept)
        ahead = min(below + ends - stays, 2 * buckets.prefetch)
        return self.b * (in_use + stays + ahead)


def _size(layer: Layer) -> int:
    return layer.num_parameters
