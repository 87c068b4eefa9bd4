"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass

from sft.config_optimizer import OptimizerConfig
from sft.data.planning.extension import schedule_of
from sft.data.planning.pack_plan import PackPlan


@dataclass(frozen=True, slots=True)
class LrSchedule:
    """A linear warm-up to the peak, then cosine, linear or constant until the last step."""

    optimizer: OptimizerConfig
    num_steps: int

    def __call__(self, step: int) -> float:
        """The rate of `step`, counted from 0. The first warm-up step already learns, and so does the last step."""
        config = self.optimizer
        num_warmup = config.warmup_steps or round(config.warmup_ratio * self.num_steps)
        if step < num_warmup:
            return config.lr * (step + 1) / (num_warmup + 1)
        if config.schedule == "constant":
            return config.lr
        progress = (step - num_warmup) / max(1, self.num_steps - num_warmup)
        left = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return config.lr * (config.min_lr_ratio + (1.0 - config.min_lr_ratio) * left)


@dataclass(frozen=True, slots=True)
class StageSchedule:
    """The rate of a whole stage: one schedule after the other if it was extended."""

    parts: tuple[LrSchedule, ...]

    @classmethod
    def of(cls, optimizer: OptimizerConfig, plan: PackPlan) -> "StageSchedule":
        """The schedule of a plan; what the plan says of its parts overrides the config."""
        schedules = [schedule_of(optimizer, part.schedule) for part in plan.parts]
        rates = [optimizer.model_copy(update=schedule) for schedule in schedules] or [optimizer]
        return cls(tuple(map(LrSchedule, rates, plan.steps().part_steps)))

    @property
    def num_steps(self) -> int:
        """Steps of all parts."""
        return sum(part.num_steps for part in self.parts)

    def __call__(self, step: int) -> float:
        """The rate of `step`, counted from 0 over all parts."""
        for part in self.parts:
            if step < part.num_steps:
                return part(step)
            step -= part.num_steps
        raise IndexError(f"the stage has {self.num_steps} steps")
