"""What the evaluations of a stage decide: whether too much was forgotten, whether it ends, which model is the best.

Each decision follows from the config and the evaluations on disk, of this step and those before it. So a run that was
killed decides as one that never was.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sft.answer_files import answers_of
from sft.atomic_files import read_json
from sft.config import SftConfig
from sft.errors import UserError
from sft.evaluation.best_step import Curve, Measured, read_curve
from sft.evaluation.forgetting import falls_in_words, find_falls
from sft.evaluation.scores import Evaluation, read_evaluation
from sft.ranks.agreement import all_texts, any_rank
from sft.run_folder import RunFolder, StageFolder
from sft.training.attempt import Attempt


class Verdict(NamedTuple):
    """What follows from an evaluation, the same on all ranks."""

    is_end: bool = False
    """Whether the stage ends here, before its budget."""
    forgotten: str | None = None
    """Why the run stops here, in words."""


@dataclass(frozen=True)
class Decisions:
    """The decisions about one stage. The first rank reads the files, and tells the others."""

    config: SftConfig
    run: RunFolder
    stage: StageFolder
    attempt: Attempt
    retained: Mapping[str, Collection[str]]
    """What may not be forgotten, in words → its tasks."""

    def after(self, num_steps: int | None, is_new: bool) -> Verdict:
        """What follows from the evaluation after so many steps, or at the stage's end; all ranks call it together.

        Args:
            num_steps: None at the end of the stage.
            is_new: whether it was measured now: then what was forgotten is told.
        """
        best, ranks = self.config.checkpoint.best, self.attempt.ranks
        may_end = num_steps is not None and best is not None and best.stop_when_flat is not None
        if not may_end and not self.retained:
            return Verdict()
        is_first = ranks.world.is_first
        is_end = is_first and may_end and best is not None and self.curve(num_steps or 0).is_flat(best)
        forgotten = self._forgotten(num_steps, is_new) if is_first and self.retained else None
        return Verdict(any_rank(ranks, is_end), next(iter(all_texts(ranks, forgotten)), None))

    def curve(self, up_to: int, *, with_end: bool = False) -> Curve:
        """The score that is compared, after each evaluated step up to this one."""
        best = self.config.checkpoint.best
        assert best is not None
        return read_curve(self.run, self.stage, best.score, best.task, up_to, with_end=with_end)

    def find_best(self, steps: Collection[int]) -> int | None:
        """The best of the evaluated steps among these, none of which is still to come.

        Raises:
            OSError: an evaluation cannot be read.
        """
        if self.config.checkpoint.best is None or not steps:
            return None
        try:
            best = self.curve(max(steps)).only(steps).best
        except UserError as error:
            raise OSError(str(error)) from error
        return None if best is None else best.step

    def ranked(self, num_steps: int) -> list[Measured]:
        """The evaluated steps of a stage that ends after so many, the best first; all ranks call it together."""
        ranks = self.attempt.ranks
        found = self.curve(num_steps, with_end=True).ranked() if ranks.world.is_first else []
        return [Measured(*point) for point in json.loads(ranks.gather(json.dumps(found))[0])]

    def _forgotten(self, num_steps: int | None, is_new: bool) -> str | None:
        """Tell what was forgotten; returns why the run stops, if it does."""
        retain, base_path = self.config.evaluate.retain, self.run.evaluation()
        if retain is None or not base_path.is_file():
            return None
        base = read_evaluation(read_json(base_path), None, None)
        now = self._read(num_steps)
        paths = answers_of(base_path), answers_of(self.run.evaluation(self.stage, num_steps))
        answers = paths if all(path.is_file() for path in paths) else None
        falls = find_falls(base, now, retain, self.retained, answers)
        if not falls:
            return None
        when = "at its end" if num_steps is None else f"after step {num_steps}"
        text = f"stage {self.stage.name}, {when}: {falls_in_words(falls, now, retain)}"
        if is_new:
            step = {} if num_steps is None else {"step": num_steps}
            self.attempt.events.add("forgotten", text, stage=self.stage.name, **step)
        if retain.action == "warn":
            return None
        return (
            f"{text}. The run stops here, with a checkpoint (evaluate.retain.action: stop); to go on all the same, set "
            "evaluate.retain.action=warn or allow a larger max_drop, and start it again."
        )

    def _read(self, num_steps: int | None) -> Evaluation:
        path = self.run.evaluation(self.stage, num_steps)
        return read_evaluation(read_json(path), self.stage.index, num_steps)
