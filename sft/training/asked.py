"""What the model of a run is asked whenever it is measured, if the config says so: prepared once for all stages."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sft.answering.asking import Asking
from sft.answering.decoding import Decoding, try_decoding
from sft.answering.whole_model import WholeModel, copy_fits, whole_copy
from sft.answering.writing import Style
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.tokenization import ExampleTokenizer
from sft.engine.engine import Engine
from sft.evaluation.answer_evaluator import AnswerEvaluator
from sft.evaluation.judged_answers import scores_of
from sft.model.attention import layout_of
from sft.progress import Tell
from sft.questions.question import Question
from sft.questions.question_set import fingerprint_of, open_questions, stop_ids_of
from sft.scoring.registry import Score

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
        tokenizer = ExampleTokenizer(load_tokenizer(config.model))
        return cls(questions, scores_of(questions, evaluate), style, fingerprint_of(folder), tokenizer)

    def evaluator(self, engine: Engine, config: SftConfig, model_path: str, path: Path, tell: Tell) -> AnswerEvaluator:
        """What measures the engine's model by its answers; all ranks call this together.

        Args:
            engine: its model is asked.
            config: the run's, with its layout settled.
            model_path: where the engine's model was loaded from.
            path: the file for the answers.
            tell: called whenever there is progress.
        """
        size = engine.ranks.world.size
        copied = size > 1 and _is_copied(engine, config)
        max_minutes = config.evaluate.max_minutes
        asking = Asking(
            style=self.style,
            decoding=_decoding(engine.hf_model, config),
            layout=layout_of(config.train.packing),
            in_step=size > 1 and not copied,
            max_seconds=None if max_minutes is None else max_minutes * _SECONDS,
        )
        return AnswerEvaluator(
            model=engine,
            open_writer=partial(_writer, engine, config, model_path, copied),
            questions=self.questions,
            scores=self.scores,
            asking=asking,
            tokenizer=self.tokenizer,
            ranks=engine.ranks,
            path=path,
            about={"questions": self.fingerprint, "answers": path.name},
            allow_code=config.evaluate.allow_code,
            tell=tell,
        )

    def evaluator_of_whole(
        self, model: WholeModel, config: SftConfig, path: Path, about: str, tell: Tell
    ) -> AnswerEvaluator:
        """What measures a whole model by its answers, in this process.

        Args:
            model: it is asked.
            config: its layout is that of the model.
            path: the file for the answers.
            about: identifies the model.
            tell: called whenever there is progress.
        """
        asking = Asking(self.style, _decoding(model.hf_model, config), layout_of(config.train.packing), in_step=False)
        return AnswerEvaluator(
            model=model,
            open_writer=lambda: nullcontext(model.hf_model),
            questions=self.questions,
            scores=self.scores,
            asking=asking,
            tokenizer=self.tokenizer,
            ranks=model.ranks,
            path=path,
            about={"questions": self.fingerprint, "model": about},
            allow_code=config.evaluate.allow_code,
            tell=tell,
        )


def _is_copied(engine: Engine, config: SftConfig) -> bool:
    wish = config.evaluate.copy_model
    return copy_fits(engine, config) if wish == "auto" else wish == "always"


def _decoding(model: Any, config: SftConfig) -> Decoding:
    return try_decoding(model.config, **({"trust_remote_code": True} if config.model.trust_remote_code else {}))


@contextmanager
def _writer(engine: Engine, config: SftConfig, model_path: str, copied: bool) -> Iterator[Any]:
    if not copied:
        yield engine.hf_model
        return
    with whole_copy(engine, config, model_path, torch.device(engine.ranks.world.device)) as copy:
        yield copy
