"""How many bytes each worker sends and receives in a step of ZeRO-3, and of workers that share micro-batches.

Rajbhandari et al. 2020, section 7: parameters are gathered for the forward and again for the backward pass, gradients
are reduced and scattered once; each of the three moves all parameters except the worker's own part. Ours differs in two
ways: gradients are float32, and parameters that stay whole until the backward pass are not gathered again (see
`gathering`).
"""

from typing import NamedTuple

from sft.sizing.activations import exchanged_widths
from sft.sizing.gathering import num_gathered_again
from sft.sizing.model_shape import ModelShape
from sft.sizing.setting import Setting

_FLOAT32 = 4


class Traffic(NamedTuple):
    """Bytes of one worker in a step."""

    gathered: int
    """Received: parameters, for each micro-batch."""
    reduced: int
    """Sent: gradients, after each micro-batch."""
    exchanged: int = 0
    """Sent, and as much received: tokens of attention, between workers that share a micro-batch."""


def step_traffic(shape: ModelShape, setting: Setting, micro_batches: int) -> Traffic:
    """The traffic of a step with this number of micro-batches on each worker.

    Activation checkpointing adds nothing to that of parameters: the recomputation uses those that its backward pass
    needs anyway. It exchanges the tokens of attention again.
    """
    others = micro_batches * (setting.num_workers - 1) / setting.num_workers
    gathered = shape.num_parameters + num_gathered_again(shape, setting)
    return Traffic(
        round(others * setting.numbers.num_bytes * gathered),
        round(others * _FLOAT32 * shape.num_parameters),
        micro_batches * _exchanged(shape, setting),
    )


def _exchanged(shape: ModelShape, setting: Setting) -> int:
    """Bytes that a worker sends to those that share its micro-batch: forward, backward, and where it runs again."""
    parts, recomputed = setting.sequence_parallel, setting.recomputed(len(shape.layers))
    widths = [
        (3 if i in recomputed else 2) * sum(exchanged_widths(layer, parts)) for i, layer in enumerate(shape.layers)
    ]
    return setting.num_tokens * setting.numbers.num_bytes * sum(widths) * (parts - 1) // parts
