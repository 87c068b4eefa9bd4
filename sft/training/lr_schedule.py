"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass

from sft.config import OptimizerConfig


@dataclass(frozen=True, slots=True)
class LrSchedule:
    """A linear warm-up to the peak, then cosine, linear or constant to the last step."""

    optimizer: OptimizerConfig
    num_steps: int

    def __call__(self, step: int) -> float:
        """The rate of `step`, counted from 0. The first warm-up step already learns; the last step of all does too."""
        config = self.optimizer
        num_warmup = round(config.warmup_ratio * self.num_steps)
        if step < num_warmup:
            return config.lr * (step + 1) / (num_warmup + 1)
        if config.schedule == "constant":
            return config.lr
        progress = (step - num_warmup) / max(1, self.num_steps - num_warmup)
        left = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return config.lr * (config.min_lr_ratio + (1.0 - config.min_lr_ratio) * left)
