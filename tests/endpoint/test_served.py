"""A served model is measured as a whole one: the tiny model behind a server gives the answers that it gives here."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from launcher.evaluation import evaluate_models
from launcher.pair_tables import PairJudge
from sft.answer_files import answers_of, preferences_of
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from sft.errors import UserError
from sft.evaluation.judged_answers import read_judged
from sft.job_config import JobConfig
from sft.training.served_evaluation import ServedModels
from sft.training.whole_evaluation import measure_whole, model_here, models_of, prepare_measurement
from tests.conftest import WORDS
from tests.endpoint.chat_server import chat_server
from tests.questions.asked import config_of, write_records

NEW = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> SftConfig:
    folder, draw = tmp_path_factory.mktemp("served"), random.Random(1)
    records = []
    for i in range(24):
        words = draw.sample(WORDS, 3)
        record = {"instruction": f"Say {' '.join(words)}", "input": str(i), "output": words[0], "task": "say"}
        record["worse"] = "x" if i % 3 else ""
        records.append(record if i % 2 else {**record, "task": "choose", "options": words})
    sources = [{"name": "s", "path": write_records(folder / "s.jsonl", records), "task": {"column": "task"}}]
    sources[0]["grading"] = {"rejected": "worse"}
    return config_of(folder, tiny_model_dir, sources, evaluate={"shots": [0, 1], "max_new_tokens": NEW})


def job_of(config: SftConfig) -> JobConfig:
    return JobConfig(sft=config, lines={}, notes=())


def as_a_server(folder: Path, config: SftConfig) -> Any:
    """Answers as `transformers serve` would: the model's own template, and its most probable tokens."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = load_tokenizer(config.model)

    def respond(content: Mapping[str, Any]) -> str:
        asked = tokenizer.apply_chat_template(content["messages"], add_generation_prompt=True, return_dict=True)
        ids = torch.tensor([asked["input_ids"]])
        stops = [tokenizer.convert_tokens_to_ids(stop) for stop in content["stop"]]
        with torch.inference_mode():
            written = model.generate(
                ids, max_new_tokens=content["max_tokens"], do_sample=False, eos_token_id=stops, pad_token_id=0
            )
        return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))

    return respond


def test_a_served_model_gives_the_answers_that_it_gives_here(config: SftConfig, tiny_model_dir: Path) -> None:
    measurement = prepare_measurement(config)
    [base] = models_of(config, ["base"])
    here = measure_whole(config, measurement, base, model_here, lambda: None)
    with chat_server(as_a_server(tiny_model_dir, config)) as server:
        served = ServedModels(EndpointClient(Endpoint(server.url), Patience(at_once=2)))
        found = measure_whole(config, measurement, served.model, served.open, lambda: None)
        asked = len(server.asked)
        assert measure_whole(config, measurement, served.model, served.open, lambda: None) == found
        assert len(server.asked) == asked
    assert not served.in_vain
    own = {one.key: one for one in read_judged(answers_of(measurement.result_of(base)))}
    for one in read_judged(measurement.folder / f"{served.model.file_name}.answers.jsonl"):
        if one.task == "say":
            assert (one.answer.text, one.scores["rouge_l" if "rouge_l" in one.scores else "exact_match"]) == (
                own[one.key].answer.text,
                own[one.key].score,
            )
        else:
            assert one.score_name == "choice"
            assert not one.answer.likelihoods
    assert found.value("score", "say") == here.value("score", "say")
    assert "loss" not in found.metrics


def test_an_evaluation_goes_on_where_the_server_was_lost(config: SftConfig) -> None:
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"max_new_tokens": NEW - 1})})
    measurement = prepare_measurement(config)
    with chat_server(lambda content: "an answer", status=500, num_well=5) as server:
        served = ServedModels(EndpointClient(Endpoint(server.url), Patience(at_once=1, retries=0, most_in_vain=2)))
        with pytest.raises(EndpointError, match=r"2 requests in a row got no answer.*what was answered is kept"):
            measure_whole(config, measurement, served.model, served.open, lambda: None)
        server.status, server.respond, lost = 0, lambda content: "word " * 200, len(server.asked)
        measure_whole(config, measurement, served.model, served.open, lambda: None)
        asked = measurement.asked
        assert asked is not None
        judged = [*read_judged(measurement.folder / f"{served.model.file_name}.answers.jsonl")]
    assert [one.answer.text for one in judged] == ["an answer"] * 5
    assert len(server.asked) - lost == len(asked.questions) - 5
    assert any("tokens came, and at most 5 were asked for" in reason for reason in served.in_vain)


def test_the_command_shows_a_served_model_beside_a_whole_one_and_who_is_better(config: SftConfig) -> None:
    """The judge prefers the longer answer, and where both are as long, the first: then the orders disagree."""
    nothing = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"answers_per_task": 0})})
    console = Console(record=True, width=110, force_terminal=False)

    def respond(content: Mapping[str, Any]) -> str:
        prompt = content["messages"][-1]["content"]
        if "<answer_A>" not in prompt:
            return "an answer of the server"
        first, second = (prompt.split(f"answer_{name}>")[1] for name in "AB")
        return f'{{"reason": "longer", "better": "{"A" if len(first) >= len(second) else "B"}"}}'

    with chat_server(respond) as server:
        judge = PairJudge(Endpoint(server.url), "base")
        for _ in range(2):
            assert evaluate_models(job_of(config), ["base"], Endpoint(server.url), console, judge) == 0
        with pytest.raises(UserError, match="--endpoint: a served model is measured by its answers alone"):
            evaluate_models(job_of(nothing), [], Endpoint(server.url), console)
        with pytest.raises(UserError, match="--judge-against broad: measured are tiny at .*Name one of them"):
            evaluate_models(job_of(config), [], Endpoint(server.url), console, judge._replace(against="broad"))
    judged = [one["messages"][-1]["content"] for one in server.asked if "<answer_A>" in str(one["messages"])]
    said = " ".join(console.export_text().split())
    assert "prompts with options are answered in writing" in said
    assert "tiny at 127.0.0.1" in said
    assert "against base, judged by tiny" in said
    folder = prepare_measurement(config).folder
    [path] = folder.glob("*-against-base-*.pairs.jsonl")
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    preferred = [json.loads(line) for line in preferences_of(folder)[0].read_text().splitlines()]
    assert "what people prefer, judged by tiny" in said
    assert {pair["outcome"] for pair in preferred} == {"win"}, "the record's own answer is the longer one"
    assert 0 < len(preferred) < len({pair["key"].partition("@")[0] for pair in pairs})
    assert len(judged) == 2 * (len(pairs) + len(preferred)) == len({*judged})
    assert {pair["outcome"] for pair in pairs} <= {"win", "tie", "loss"}
    assert all(pair["as_first"].endswith(": longer") for pair in pairs)
