"""What a stage needs besides its engine."""

from dataclasses import dataclass
from typing import Any

from sft.config import FromConfig, SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.evaluation.forgetting import retained_tasks
from sft.evaluation.heldout import HeldoutSet
from sft.run_folder import StageFolder
from sft.training.asked import AskedQuestions
from sft.training.attempt import Attempt
from sft.training.decisions import Decisions
from sft.training.run_context import RunContext


@dataclass(frozen=True)
class StageInputs:
    """The inputs of one stage."""

    context: RunContext
    index: int
    store: TokenStore
    plan: PackPlan
    heldout: HeldoutSet | None
    tokenizer: Any
    model_path: str
    """Where the engine's model was loaded from."""
    asked: AskedQuestions | None = None
    """What the model is asked whenever it is measured."""

    @property
    def config(self) -> SftConfig:
        """The run's config."""
        return self.context.config

    @property
    def attempt(self) -> Attempt:
        """This start of the job."""
        return self.context.attempt

    @property
    def start(self) -> FromConfig | None:
        """Where the stage starts, if in another run."""
        return self.config.from_ if self.index == 0 else None

    @property
    def folder(self) -> StageFolder:
        """The stage's folder in the run folder."""
        return self.context.folder.stage(self.index, self.config.stages[self.index].name)

    def decisions(self) -> Decisions:
        """What the stage's evaluations decide."""
        retain, heldout = self.config.evaluate.retain, self.heldout
        retained = {} if retain is None or heldout is None else retained_tasks(retain, heldout.store, heldout.plan)
        return Decisions(self.config, self.context.folder, self.folder, self.attempt, retained)
