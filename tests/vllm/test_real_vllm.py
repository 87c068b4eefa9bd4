"""The same with vLLM itself, where it is: `vllm` on PATH, or the program that SFT_TEST_VLLM names. A minute or more."""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sft.answer_files import answers_of
from sft.evaluation.judged_answers import read_judged
from sft.training.vllm_evaluation import VllmModels
from sft.training.whole_evaluation import measure_whole, model_here, models_of, prepare_measurement
from sft.vllm.command import read_command
from tests.conftest import WORDS, write_tokenizer
from tests.questions.asked import config_of, write_records

VLLM = os.environ.get("SFT_TEST_VLLM") or shutil.which("vllm")
pytestmark = pytest.mark.skipif(VLLM is None, reason="vLLM is not here: name its program in SFT_TEST_VLLM")


def write_model(folder: Path) -> Path:
    """Heads of 32, which vLLM's attention on CPUs takes; weights so large that each prompt has another answer."""
    folder.mkdir()
    vocab_size = write_tokenizer(folder, "chatml")
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=vocab_size, initializer_range=1.0, max_position_embeddings=512, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_vllm_gives_the_answers_of_the_whole_model(tmp_path: Path) -> None:
    draw, records = random.Random(1), []
    for i in range(40):
        words = draw.sample(WORDS, 3)
        record = {"instruction": f"Say {' '.join(words)}", "input": str(i), "output": words[0], "task": "say"}
        records.append(record if i % 2 else {**record, "task": "choose", "options": words})
    sources = [{"name": "s", "path": write_records(tmp_path / "s.jsonl", records), "task": {"column": "task"}}]
    wanted = {"answers_per_task": 20, "shots": [0, 2], "max_new_tokens": 24}
    config = config_of(tmp_path, write_model(tmp_path / "model"), sources, evaluate=wanted)
    measurement = prepare_measurement(config)
    assert measurement.asked is not None
    style = replace(measurement.asked.style, stop_ids=tuple(range(0, 400, 24)))
    measurement = measurement._replace(asked=replace(measurement.asked, style=style))
    [base] = models_of(config, ["base"])
    measure_whole(config, measurement, base, model_here, lambda: None)
    models = VllmModels(read_command(f"{VLLM} serve --enforce-eager"), 10.0, lambda text: None)
    measure_whole(config, measurement, models.of(base), models.open, lambda: None)
    assert not models.in_vain
    here, there = (
        {one.key: one.answer for one in read_judged(answers_of(measurement.result_of(model)))}
        for model in (base, models.of(base))
    )
    assert here.keys() == there.keys()
    assert {answer.stopped for answer in here.values() if not answer.likelihoods} == {True, False}
    for key, answer in there.items():
        assert replace(answer, likelihoods=here[key].likelihoods) == here[key]
        assert answer.likelihoods == pytest.approx(here[key].likelihoods, abs=1e-3)
