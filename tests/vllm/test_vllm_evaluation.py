"""Models in vLLM: the tokens, the ends and the likelihoods of options are those of the whole model here."""

import json
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from launcher.evaluation import evaluate_models
from launcher.vllm_options import VllmWish
from sft.answer_files import answers_of
from sft.answering.answer import Answer
from sft.config import SftConfig
from sft.endpoint.endpoint import EndpointError
from sft.errors import TrainingError, UserError
from sft.evaluation.judged_answers import read_judged
from sft.job_config import JobConfig
from sft.training.vllm_evaluation import VllmModels
from sft.training.whole_evaluation import (
    Measurement,
    WholeModelPath,
    measure_whole,
    model_here,
    models_of,
    prepare_measurement,
)
from sft.vllm.command import read_command
from tests.conftest import WORDS, write_tokenizer
from tests.questions.asked import config_of, write_records
from tests.vllm.test_server import PRETENDED

NEW = 12


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its large weights make it write something else for each prompt."""
    folder = tmp_path_factory.mktemp("varied_model")
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocab_size = write_tokenizer(folder, "chatml")
    config = LlamaConfig(vocab_size=vocab_size, initializer_range=1.0, max_position_embeddings=512, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> SftConfig:
    folder, draw = tmp_path_factory.mktemp("in_vllm"), random.Random(1)
    records = []
    for i in range(24):
        words = draw.sample(WORDS, 3)
        record = {"instruction": f"Say {' '.join(words)}", "input": str(i), "output": words[0], "task": "say"}
        records.append(record if i % 2 else {**record, "task": "choose", "options": words})
    sources = [{"name": "s", "path": write_records(folder / "s.jsonl", records), "task": {"column": "task"}}]
    return config_of(folder, model_dir, sources, evaluate={"shots": [0, 1], "max_new_tokens": NEW})


@pytest.fixture(scope="module")
def base(config: SftConfig) -> WholeModelPath:
    return models_of(config, ["base"])[0]


def with_new_tokens(config: SftConfig, num: int) -> SftConfig:
    """Other questions, so that nothing is kept of them."""
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"max_new_tokens": num})})


def in_vllm(fault: str = "") -> VllmModels:
    options = f" --fault '{fault}'" if fault else " --tensor-parallel-size 2"
    return VllmModels(read_command(f"{sys.executable} {PRETENDED} serve{options}"), 4.0, lambda text: None)


def answers(measurement: Measurement, model: WholeModelPath) -> Mapping[str, Answer]:
    return {one.key: one.answer for one in read_judged(answers_of(measurement.result_of(model)))}


@pytest.mark.long
def test_a_model_in_vllm_gives_the_answers_that_it_gives_here(config: SftConfig, base: WholeModelPath) -> None:
    measurement = prepare_measurement(config)
    assert measurement.asked is not None
    # An untrained model ends an answer by chance alone.
    style = replace(measurement.asked.style, stop_ids=tuple(range(0, 400, 48)))
    measurement = measurement._replace(asked=replace(measurement.asked, style=style))
    here = measure_whole(config, measurement, base, model_here, lambda: None)
    models, told = in_vllm(), []
    model = models.of(base)
    found = measure_whole(config, measurement, model, models.open, lambda: told.append(1))
    assert not models.in_vain
    assert told
    right, own = answers(measurement, base), answers(measurement, model)
    assert own.keys() == right.keys()
    for key, answer in own.items():
        same = replace(answer, likelihoods=right[key].likelihoods)
        assert same == right[key]
        assert answer.likelihoods == pytest.approx(right[key].likelihoods, abs=1e-4)
    assert {answer.stopped for answer in own.values() if not answer.likelihoods} == {True, False}
    assert any(answer.likelihoods for answer in own.values())
    for task in ("say", "choose"):
        assert found.value("score", task) == here.value("score", task)
    assert "loss" not in found.metrics
    assert found.name == "base in vLLM"


def test_what_was_answered_before_a_server_ended_is_kept(config: SftConfig, base: WholeModelPath) -> None:
    config = with_new_tokens(config, NEW - 1)
    measurement, dying = prepare_measurement(config), in_vllm("after 20")
    assert measurement.asked is not None
    model = dying.of(base)
    path = answers_of(measurement.result_of(model))
    partial = path.with_name(f".{path.name}.partial")
    ended = r"vLLM ended with exit code 3: RuntimeError: the engine is gone \(all of .*\.vllm\.log\)\. What"
    with pytest.raises(TrainingError, match=ended):
        measure_whole(config, measurement, model, dying.open, lambda: None)
    kept = {line["key"] for line in map(json.loads, partial.read_text().splitlines()[1:])}
    assert kept
    models, num = in_vllm("none"), 0

    def count() -> None:
        nonlocal num
        num += 1

    measure_whole(config, measurement, model, models.open, count)
    left = [question for question in measurement.asked.questions if question.key not in kept]
    assert num == sum(len(question.choices) or 1 for question in left) > 0
    assert answers(measurement, model).keys() == {question.key for question in measurement.asked.questions}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("other prompt", "the server answers another prompt than the one that was sent"),
        ("no ids", "an answer without token ids: only vLLM gives them"),
        ("no end", "the answer does not end at a token that was to end it"),
    ],
)
def test_a_reply_that_contradicts_is_none(config: SftConfig, base: WholeModelPath, fault: str, reason: str) -> None:
    config = with_new_tokens(config, NEW - 2)
    models = in_vllm(fault)
    with pytest.raises(EndpointError, match=f"16 requests in a row got no answer; the last one: {reason}"):
        measure_whole(config, prepare_measurement(config), models.of(base), models.open, lambda: None)


def test_the_command_shows_models_of_vllm_and_measures_each_once(config: SftConfig, model_dir: Path) -> None:
    config = with_new_tokens(config, NEW - 3)
    job, console = JobConfig(sft=config, lines={}, notes=()), Console(record=True, width=110, force_terminal=False)
    wish = VllmWish(in_vllm("none").command, 4.0)
    for _ in range(2):
        assert evaluate_models(job, ["base", str(model_dir)], None, console, vllm=wish) == 0
    said = " ".join(console.export_text().split())
    assert said.count("vLLM loads the model; its output is in") == 2
    assert "in vLLM" in said
    assert evaluate_models(job, [], None, console, vllm=VllmWish(in_vllm("while loading").command, 4.0)) == 1
    said = " ".join(console.export_text().split())
    assert "The measurement cannot go on: vLLM ended with exit code 1 while it loaded" in said
    assert "ValueError: no room for the cache (all of its output is in" in said
    nothing = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"answers_per_task": 0})})
    with pytest.raises(UserError, match="--vllm: models are measured by their answers alone"):
        evaluate_models(job.model_copy(update={"sft": nothing}), [], None, console, vllm=wish)
