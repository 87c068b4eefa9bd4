"""Ranks whose model is asked: split over them, or a whole copy on each; before and after a step of training."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sft.answering.answer import Answer
from sft.answering.asking import Asking, Respondent, ask_all
from sft.answering.decoding import try_decoding
from sft.answering.rounds import BatchSize
from sft.answering.whole_model import whole_copy
from sft.answering.writing import Style
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.tokenization import ExampleTokenizer
from sft.engine.engines import ENGINES
from sft.questions.question_set import open_questions
from sft.ranks.ranks import OneRank, Ranks
from sft.ranks.torch_ranks import TorchRanks
from sft.world import World
from tests.distributed.scenarios import build_loader, take_steps

Answers = list[dict[str, Any]]


def ask(settings: dict[str, Any], ranks: Ranks, engine_name: str, copied: bool) -> tuple[Answers, list[list[float]]]:
    """The answers after a step, and the (loss, norm) of the steps before and after: asking changes neither."""
    config = SftConfig.model_validate(settings["config"])
    engine = ENGINES[engine_name](config, config.stages[0].optimizer, config.model.path, ranks)
    loader = build_loader(settings, ranks.world)
    steps = take_steps(engine, config, loader, 0, 2)
    kept: list[Answer] = []
    split = ranks.world.size > 1
    asking = Asking(
        Style(tuple(settings["stops"]), seed=3),
        try_decoding(engine.hf_model.config),
        "packed",
        in_step=split and not copied,
        size=BatchSize(rows=3),
    )
    questions = open_questions(Path(settings["questions"]))
    tokenizer, cpu = ExampleTokenizer(load_tokenizer(config.model)), torch.device("cpu")
    copies = whole_copy(engine, config, config.model.path, cpu) if copied else nullcontext(engine.hf_model)
    with copies as writer:
        ask_all(questions, Respondent(engine, writer, tokenizer, cpu), asking, ranks, kept.extend)
    steps += take_steps(engine, config, loader, 2, 3)
    engine.close()
    return [answer.as_json() for answer in sorted(kept, key=lambda answer: answer.key)], steps


def run(rank: int, size: int, settings: dict[str, Any], folder: str, sequence_parallel: int = 1) -> None:
    """The life of a rank."""
    ranks = TorchRanks(World(rank, size, rank, sequence_parallel=sequence_parallel))
    result = {name: ask(settings, ranks, "zero3", name == "copied") for name in ("split", "copied")}
    if rank == 0:
        Path(folder, "result.json").write_text(json.dumps(result))


def alone(settings: dict[str, Any]) -> tuple[Answers, list[list[float]]]:
    """The same in this process, by the plain engine."""
    answers, steps = ask(settings, OneRank(), "plain", copied=False)
    return json.loads(json.dumps(answers)), steps
