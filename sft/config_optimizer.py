"""The section of the config that says how a stage learns: its optimizer and the learning rate."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sft.config_effects import Affects, AffectsNumbers, AffectsRate
from sft.config_section import BelowOne, Section, Share, given_instead
from sft.optimizers import OPTIMIZERS, OptimizerName


def _own_setting(field: str) -> Any:
    """The default of the named optimizer; None for a setting that it does not have."""
    return Field(default_factory=lambda given: OPTIMIZERS[given["name"]].settings.get(field))


class OptimizerConfig(Section):
    """How a stage's parameters are updated."""

    name: AffectsNumbers[OptimizerName] = "adamw"
    """AdamW, or Lion, which keeps 8 bytes a parameter instead of 12. Lion needs an `lr` 3 to 10 times smaller than
    AdamW's, and a `weight_decay` larger by the same factor."""
    lr: AffectsRate[PositiveFloat]
    """The peak learning rate."""
    schedule: AffectsRate[Literal["cosine", "linear", "constant"]] = "cosine"
    """From the peak down to `min_lr_ratio`, or constant after the warm-up."""
    warmup_ratio: AffectsRate[Share] = 0.03
    """The share of the stage's steps in which the rate rises from zero."""
    warmup_steps: Annotated[PositiveInt | None, Affects("rate", absent_at=None)] = None
    """The same in steps, instead of `warmup_ratio`, which is then 0."""
    min_lr_ratio: AffectsRate[Share] = 0.0
    """The last rate as a share of the peak."""
    weight_decay: AffectsNumbers[NonNegativeFloat] = 0.0
    """Decoupled decay; norms and biases are exempt."""
    betas: AffectsNumbers[tuple[BelowOne, BelowOne]] = _own_setting("betas")
    """AdamW: the decay of the running mean and of the running square; default: [0.9, 0.95]. Lion: the weight of the
    running mean in an update, and its decay; default: [0.9, 0.99]."""
    eps: AffectsNumbers[PositiveFloat | None] = _own_setting("eps")
    """AdamW only: keeps the division finite. Default: 1e-8."""
    max_grad_norm: AffectsNumbers[PositiveFloat] = 1.0
    """Gradients with a larger norm are scaled down to it."""

    _steps_for_ratio = given_instead("warmup_steps", of="warmup_ratio", which_is=0.0)
