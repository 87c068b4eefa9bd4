"""The sections of the config that say what is measured on held-out data: losses, and answers to held-out prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sft.config_effects import AffectsAsked, AffectsMeasured, AffectsNothing
from sft.config_section import Section

Score = str | dict[str, Any]
"""The name of a score, `module:function` for one of the user's own, or a name with settings:
`{name: regex, pattern: …}`."""

Shots = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class AskedTask(Section):
    """How the answers of one task are made and scored, where that differs from the other tasks."""

    score: AffectsAsked[Score | None] = None
    """What an answer is scored by. Default: by the kind of the task's answers (see docs/SCORES.md)."""
    options: AffectsAsked[tuple[str, ...]] = ()
    """The answers that the model chooses from, if the records do not hold them."""
    shots: AffectsAsked[Shots | None] = None
    """As `evaluate.shots`."""
    max_answers: AffectsAsked[NonNegativeInt | None] = None
    """As `evaluate.answers_per_task`."""
    max_new_tokens: AffectsAsked[PositiveInt | None] = None
    """As `evaluate.max_new_tokens`."""


class RetainConfig(Section):
    """Scores that may fall only a little below those of the model that the run begins with."""

    sources: AffectsNothing[tuple[str, ...]] = ()
    """The score of each of these sources: over the tasks of its held-out examples."""
    tasks: AffectsNothing[tuple[str, ...]] = ()
    """The score of each of these tasks."""
    score: AffectsNothing[str] = "loss"
    """A metric of the evaluations, as in `checkpoint.best.score`."""
    max_drop: AffectsNothing[NonNegativeFloat] = 0.02
    """How much worse it may become. Of a share, such as an accuracy, this is a difference: 0.02 is two percentage
    points. Of others, such as a loss, it is a part of the first value."""
    action: AffectsNothing[Literal["warn", "stop"]] = "warn"
    """`warn` writes an event, which is also an alert. `stop` ends the run with a checkpoint."""


class EvaluateConfig(Section):
    """What is measured on held-out data, before the first stage and after each."""

    before_training: AffectsNothing[bool] = True
    """Whether the model is measured before its first step, too. Without it, nothing says what the training changed; it
    is for runs whose first model another run has measured."""
    every_steps: AffectsNothing[PositiveInt | None] = None
    """Also measure within a stage: steps between two evaluations."""
    every_epochs: AffectsNothing[PositiveFloat | None] = None
    """The same in epochs, which may be a fraction. All stages then need a budget in epochs."""
    max_examples_per_task: AffectsMeasured[PositiveInt | None] = 200
    """The most held-out examples to measure of each task; `null`: all of them."""
    sample_answers: AffectsNothing[NonNegativeInt] = 0
    """How many held-out prompts the first and the last model answer, for people to read."""
    answers_per_task: AffectsAsked[NonNegativeInt] = 0
    """How many held-out prompts of each task the model answers, to be scored. They are among the examples that
    `max_examples_per_task` measures."""
    shots: AffectsAsked[Shots] = (0,)
    """How many examples of the same task stand in front of a prompt. With several numbers, each prompt is asked with
    each. They are never the record itself, nor one with the same prompt."""
    shots_as: AffectsAsked[Literal["turns", "text"]] = "turns"
    """Whether these examples are earlier turns of the conversation, or text in the prompt."""
    tag: AffectsAsked[Literal["as_trained", "always", "never"]] = "as_trained"
    """Which prompts get the line of `data.task_tag`: those that would have it in training, all, or none."""
    max_new_tokens: AffectsAsked[PositiveInt] = 128
    """Where an answer is cut, if the model does not stop."""
    temperature: AffectsAsked[NonNegativeFloat] = 0.0
    """0 takes the most probable token each time. A higher value draws, from the run's seed."""
    top_p: AffectsAsked[Annotated[float, Field(gt=0.0, le=1.0)]] = 1.0
    """With a temperature: tokens are drawn from the most probable ones that together have this probability."""
    copy_model: AffectsNothing[Literal["auto", "always", "never"]] = "auto"
    """Whether each of several workers holds a whole copy of the model while it writes answers. Without one, all workers
    gather each layer for each token, which is many times slower. `auto`: where the copy fits in memory."""
    max_minutes: AffectsNothing[PositiveFloat | None] = None
    """Within a training: no more prompts are answered in an evaluation once this much time has passed. What is left is
    counted. The prompts that were answered are then of all tasks."""
    tasks: AffectsAsked[dict[str, AskedTask]] = {}
    """Task → what differs for it."""
    retain: AffectsNothing[RetainConfig | None] = None
    """What may not be forgotten, looked at after each evaluation. Default: nothing is compared."""
    allow_code: AffectsAsked[bool] = False
    """Whether code that a model writes may be run, to score it by its tests. It runs without a network, in a sandbox
    (see docs/SCORES.md)."""

    def num_answers(self, task: str) -> int:
        """How many prompts of a task are answered."""
        own = self.tasks.get(task, _NO_TASK).max_answers
        return self.answers_per_task if own is None else own

    def shots_of(self, task: str) -> tuple[int, ...]:
        """How many examples are shown with the prompts of a task."""
        return self.tasks.get(task, _NO_TASK).shots or self.shots

    def new_tokens(self, task: str) -> int:
        """Where the answers of a task are cut."""
        return self.tasks.get(task, _NO_TASK).max_new_tokens or self.max_new_tokens


_NO_TASK = AskedTask()
