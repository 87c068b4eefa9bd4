"""What training, checkpoints and evaluation need from an engine.

The protocol is small, so that a plain single-process engine can be the tests' oracle for ZeRO-3. Checkpoints do not
know how an engine lays out its memory: state is flat tensors by name, in parts.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sft.data.collate import Batch
from sft.model.loss import TokenMeasure
from sft.ranks.ranks import Ranks


class StepResult(NamedTuple):
    """What a step did: the mean loss over its supervised tokens, and the norm of its gradient before clipping."""

    loss: float
    grad_norm: float


class Shard(NamedTuple):
    """A part of one flat state tensor: elements `start` to `start + len(values)` of `numel`, on any device."""

    numel: int
    start: int
    values: Tensor


ReadState = Callable[[str, int, int], Tensor]
"""(`key`, `start`, `stop`) → those elements of a flat state tensor, as float32 on the CPU."""


class NonFiniteError(RuntimeError):
    """The loss or the gradient of a step is not finite. No update was made, and the next step can follow."""

    def __init__(self, what: str, ranks: tuple[int, ...] = ()) -> None:
        """`ranks`: those whose own loss is not finite, if known."""
        super().__init__(what)
        self.ranks = ranks


class Engine(Protocol):
    """A model with its optimizer, on this rank."""

    @property
    def ranks(self) -> Ranks:
        """The ranks that the model and the steps are split over."""
        ...

    awaits_state: bool
    """Whether the trained parameters have no values before `load_local_state`, and so were not read from the model."""
    num_begun: int
    """Micro-batches that it has begun to train on, in all steps: it shows whether a long step makes progress."""

    def train_step(self, micro_batches: Sequence[Batch], num_supervised_tokens: int, lr: float) -> StepResult:
        """One update from this rank's micro-batches; `num_supervised_tokens` is that of the step over all ranks.

        Raises:
            NonFiniteError: on every rank, before the update; the gradients are gone.
        """
        ...

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """Each measure added up over the supervised tokens of each segment, without a gradient.

        (num_segments, len(measures)), float64 on the CPU.
        """
        ...

    def token_nll(self, batch: Batch, by_own_forward: bool = False) -> Tensor:
        """The nll of each supervised token, in the order of the rows, without a gradient: (S,) float32 on the CPU.

        With `by_own_forward`, by the model's own forward pass (see `sft.model.loss.SupervisedNll`); without it, as in
        training except for dropout.
        """
        ...

    def local_state(self) -> dict[str, Shard]:
        """This rank's part of the state, by `<parameter>/<kind>`: views of it in place, not copies.

        The kinds are those of the optimizer (`sft.optimizers`). The engine decides which elements a rank has. All ranks
        together have every element, and a rank has the same elements of all tensors of one size.
        """
        ...

    def local_spans(self) -> dict[str, range]:
        """The elements of each flat state tensor that this rank holds, and reads when it resumes."""
        ...

    def load_local_state(self, read: ReadState, num_updates: int) -> None:
        """Load a saved state: `read` gives any part of it, whatever world size saved it.

        All ranks read their parts of the same tensors, in the same order.
        """
        ...

    def gather_parameters(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These whole parameters, trained or not, one at a time, by any name; all ranks must iterate together."""
        ...

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model, for its config and generation config."""
        ...

    def close(self) -> None:
        """Free all memory, on the device too. Nothing else can be called afterwards.

        Parts of the model that a caller still holds keep their memory.
        """
        ...


def run_without_gradient(module: nn.Module, run: Callable[[], Tensor], training: bool) -> Tensor:
    """The result of `run` with `module` in training mode or not; afterwards it is in training mode."""
    module.train(training)
    try:
        with torch.no_grad():
            return run()
    finally:
        module.train()
