"""What the model of a run is asked whenever it is measured, if the config says so: prepared once for all stages."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sft.answering.asking import Ask, Asking, KeepAnswers, Respondent, ask_all
from sft.answering.decoding import try_decoding
from sft.answering.rounds import ROWS_IN_STEP
from sft.answering.whole_model import WholeModel, batch_size, copy_fits, whole_copy
from sft.answering.writing import Style
from sft.config import SftConfig
from sft.config_evaluation import EvaluateConfig
from sft.data.record_pipeline import RecordPipeline
from sft.data.tokenization import ExampleTokenizer
from sft.engine.engine import Engine
from sft.evaluation.answer_evaluator import AnswerEvaluator
from sft.evaluation.judged_answers import scores_of
from sft.model.attention import layout_of
from sft.progress import Tell
from sft.questions.question import Question
from sft.questions.question_set import fingerprint_of, open_questions, stop_ids_of
from sft.ranks.ranks import OneRank, Ranks
from sft.scoring.registry import Score
from sft.world import World

_SECONDS = 60.0


@dataclass(frozen=True)
class AskedQuestions:
    """The questions of a run, and how their answers are scored."""

    questions: list[Question]
    scores: dict[str, Score]
    style: Style
    fingerprint: str
    tokenizer: ExampleTokenizer

    @classmethod
    def open(cls, folder: Path, config: SftConfig) -> "AskedQuestions":
        """The questions published at `folder`.

        Raises:
            UserError: a score of the config cannot be used.
        """
        questions, evaluate = open_questions(folder), config.evaluate
        style = Style(stop_ids_of(folder), evaluate.temperature, evaluate.top_p, config.run.seed)
        tokenizer = RecordPipeline(config.data, config.model).tokenizer
        return cls(questions, scores_of(questions, evaluate), style, fingerprint_of(folder), tokenizer)

    def evaluator(self, ask: Ask, ranks: Ranks, evaluate: EvaluateConfig, path: Path, about: str) -> AnswerEvaluator:
        """What measures a model by its answers.

        Args:
            ask: asks the model.
            ranks: call it together.
            evaluate: the section of the config.
            path: the file for the answers.
            about: identifies the model among those whose answers are kept in this file.
        """
        identity = {"questions": self.fingerprint, "model": about}
        return AnswerEvaluator(ask, self.questions, self.scores, ranks, path, identity, evaluate.allow_code)

    def ask_engine(self, engine: Engine, config: SftConfig, model_path: str, tell: Tell) -> Ask:
        """What asks the model of an engine; all ranks call this together.

        Args:
            engine: its model is asked.
            config: the run's, with its layout settled.
            model_path: where the engine's model was loaded from.
            tell: called whenever there is progress.
        """
        ranks = engine.ranks
        copied = ranks.world.size > 1 and _is_copied(engine, config)
        max_minutes = config.evaluate.max_minutes
        in_step = ranks.world.size > 1 and not copied
        asking = self._asking(engine.hf_model, config, ranks)
        asking = replace(
            asking,
            in_step=in_step,
            size=asking.size._replace(rows=ROWS_IN_STEP) if in_step else asking.size,
            max_seconds=None if max_minutes is None else max_minutes * _SECONDS,
        )
        device = torch.device(ranks.world.device)

        def ask(questions: Sequence[Question], keep: KeepAnswers) -> None:
            copy = whole_copy(engine, config, model_path, device) if copied else nullcontext(engine.hf_model)
            with copy as writer:
                ask_all(questions, Respondent(engine, writer, self.tokenizer, device), asking, ranks, keep, tell)

        return ask

    def ask_whole(self, model: WholeModel, config: SftConfig, tell: Tell) -> Ask:
        """What asks a whole model in this process; the layout of the config is that of the model."""
        asking = self._asking(model.hf_model, config, model.ranks)
        respondent = Respondent(model, model.hf_model, self.tokenizer, torch.device(model.ranks.world.device))

        def ask(questions: Sequence[Question], keep: KeepAnswers) -> None:
            ask_all(questions, respondent, asking, OneRank(World(device=model.ranks.world.device)), keep, tell)

        return ask

    def _asking(self, model: Any, config: SftConfig, ranks: Ranks) -> Asking:
        options = {"trust_remote_code": True} if config.model.trust_remote_code else {}
        decoding, layout = try_decoding(model.config, **options), layout_of(config.train.packing)
        return Asking(self.style, decoding, layout, in_step=False, size=batch_size(model, ranks))


def _is_copied(engine: Engine, config: SftConfig) -> bool:
    wish = config.evaluate.copy_model
    return copy_fits(engine, config) if wish == "auto" else wish == "always"
