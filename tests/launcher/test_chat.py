"""`sft chat` for programs: a line in, an answer out; the same answers as everywhere, and mistakes in words."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from launcher.cli import main
from sft.answer_files import answers_of
from sft.config import DataConfig, ModelConfig
from sft.data.preparation import prepare_store
from sft.evaluation.judged_answers import read_judged
from sft.job_config import load_job
from sft.run_folder import RunFolder
from sft.training.whole_evaluation import measure_whole, model_here, models_of, prepare_measurement
from tests.conftest import write_tokenizer
from tests.endpoint.chat_server import chat_server
from tests.launcher.talked_run import ANSWERS
from tests.launcher.test_cli import ROOT, Answer

Sft = Callable[..., Answer]


@pytest.fixture
def run(talked_run: RunFolder) -> RunFolder:
    return talked_run


@pytest.fixture
def sft(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: RunFolder) -> Sft:
    capsys.readouterr()
    # The command has it off from the start, but here transformers is imported already.
    monkeypatch.setattr(transformers_logging, "_tqdm_active", False)

    def call(target: object, *options: object, typed: str = "") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = main(["chat", str(target), *map(str, options)])
        return Answer(code, *capsys.readouterr())

    return call


def test_answers_are_those_that_the_evaluation_gets(sft: Sft, run: RunFolder) -> None:
    config = load_job(run.config).sft
    measurement = prepare_measurement(config)
    [broad] = models_of(config, ["broad"])
    measure_whole(config, measurement, broad, model_here, lambda: None)
    judged = {one.key: one.answer.text for one in read_judged(answers_of(measurement.result_of(broad)))}
    assert measurement.asked is not None
    questions = measurement.asked.questions
    for tag in (True, False):
        asked = [question for question in questions if ("Task type: " in question.prompt) == tag]
        asked = [question for question in asked if question.task == "a" or not tag]
        typed = "".join(f"/new\n{question.messages[-1]['content']}\n" for question in asked)
        options = ["--model", "broad", "evaluate.max_new_tokens=12", *(["--tag", "a"] if tag else [])]
        assert asked
        assert sft(run.path, *options, typed=typed).out == "".join(f"{judged[question.key]}\n" for question in asked)


def test_a_folder_alone_answers_as_plain_transformers_does(sft: Sft, run: RunFolder) -> None:
    folder = run.stage(0, "broad").model
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    turns: list[dict[str, str]] = []
    for question in ("Say it long.", "Say it short."):
        turns.append({"role": "user", "content": question})
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            written = model.generate(**ids, max_new_tokens=40, do_sample=False, pad_token_id=0)[0]
        answer = tokenizer.decode(written[ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        turns.append({"role": "assistant", "content": answer})
    found = sft(folder, "--max-new-tokens", 40, typed="Say it long.\nSay it short.\n")
    assert found == (0, f"{turns[1]['content']}\n{turns[3]['content']}\n", "")
    assert turns[1]["content"] == ANSWERS["Say it long."]


def test_text_stays_as_it_was_written_and_each_model_is_named(sft: Sft, run: RunFolder) -> None:
    out = sft(run.path, "--max-new-tokens", 30, typed="Show a table.\n").out
    base, broad = out.removeprefix("base: ").split("broad: ")
    assert broad == ANSWERS["Show a table."] + "\n"
    assert base != broad


def test_drawn_answers_follow_from_the_seed(sft: Sft, run: RunFolder) -> None:
    options = ["--model", "base", "--temperature", 1.5, "--top-p", 0.9, "--max-new-tokens", 12]
    drawn = [sft(run.path, *options, "--seed", seed, typed="Hello?\n/again\n").out for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) % 2 or drawn[0][: len(drawn[0]) // 2] * 2 != drawn[0]


def test_commands_change_what_follows_and_conversations_become_data(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    saved = tmp_path / "said.jsonl"
    typed = f"Say it short.\n/system Be brief.\n/tag a\nSay it \\\nlong.\n/save {saved}\n/new\n/save {saved}\n"
    code, out, err = sft(run.path, "--model", "broad", "--max-new-tokens", 8, typed=typed)
    assert (code, err) == (1, "broad: cut after 8 tokens; --max-new-tokens allows more\nnothing was said yet\n")
    [record] = [json.loads(line) for line in saved.read_text().splitlines()]
    answers = out.splitlines()
    contents = ["Be brief.", "Say it short.", answers[0], "Say it \nlong.", answers[1]]
    assert [message["content"] for message in record["messages"]] == contents
    assert (record["task"], record["model"]) == ("a", "broad")
    source = {"name": "said", "path": str(saved), "task": {"column": "task"}}
    data = DataConfig.model_validate({"sources": [source], "cache_dir": str(tmp_path / "cache")})
    store = prepare_store(data, ModelConfig(path=load_job(run.config).sft.model.path))
    assert (len(store), [*store.tasks]) == (1, ["a"])


def test_what_does_not_fit_into_the_window_is_said_and_never_cut(sft: Sft, run: RunFolder) -> None:
    options = ["--model", "base", "--max-new-tokens", 600]
    code, out, err = sft(run.path, *options, typed=f"{'amber ' * 600}\nNever stop.\n")
    assert code == 1
    told = err.splitlines()
    assert "tokens, and the model has room for 512: begin again with /new" in told[0]
    assert told[1] == "base: cut: the model's window of 512 tokens is full; /new begins again"
    assert (out.count("\n"), len(told)) == (2, 2)


def test_a_served_model_gets_the_turns(sft: Sft, run: RunFolder) -> None:
    with chat_server(lambda content: f"{len(content['messages'])} turns") as server:
        typed = "Hello?\n/tag a\nAnd now?\nbusy\n"
        out = sft(run.path, "--endpoint", server.url, "--temperature", 0.5, typed=typed).out
        assert out == "1 turns\n4 turns\n6 turns\n"
        assert server.asked[0]["temperature"] == 0.5
        server.status = 400
        code, out, err = sft(run.path, "--endpoint", server.url, "--model", "broad", typed="Say it short.\n")
        assert code == 1
        assert "status 400" in err
        assert out.startswith("broad: amber basin\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "narrow"], "there is no folder narrow"),
        (["--temperature", "-1"], "evaluate.temperature: -1"),
        (["--tag", "a", "data.task_tag="], "No task tag is known: the config has no data.task_tag"),
        (["--endpoint-model", "x"], "need an --endpoint URL"),
        (["evaluate.temprature=1"], "did you mean `temperature`?"),
    ],
)
def test_a_mistake_is_one_message(sft: Sft, run: RunFolder, options: list[str], told: str) -> None:
    code, out, err = sft(run.path, *options, typed="Hello?\n")
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_what_cannot_be_talked_to_is_said(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    assert "neither the folder of a run (config.yaml) nor that of a model" in sft(tmp_path).err
    assert "there is no " in sft(tmp_path / "nowhere").err
    write_tokenizer(tmp_path / "tokens", "chatml")
    (tmp_path / "tokens" / "config.json").write_text('{"model_type": "llama"}')
    assert "has no weights" in sft(tmp_path / "tokens").err
    early = [run.config, f"run.dir={tmp_path / 'early'}"]
    code, out, err = sft(*early, "--max-new-tokens", 4, typed="Hello?\n")
    assert code == 0
    assert "No stage of " in err
    assert "base: " not in out
    assert "has no model yet. No stage is finished." in sft(*early, "--model", "broad").err
    assert "sft chat" in sft(run.path, f"model.path={tmp_path / 'gone'}").err


def test_a_model_with_other_tokens_has_prompts_of_its_own(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    size = write_tokenizer(other, "phi")
    model = AutoModelForCausalLM.from_pretrained(run.stage(0, "broad").model)
    model.resize_token_embeddings(size)
    model.save_pretrained(other)
    options = ["--model", "broad", "--model", other, "--max-new-tokens", 6]
    code, out, err = sft(run.path, *options, typed="Say it short.\n")
    assert (code, err.count("other: cut after 6 tokens")) == (0, err.count("\n"))
    assert out.startswith("broad: amber basin\n")


def test_odd_lines_are_refused_in_words_and_the_others_answered(sft: Sft, run: RunFolder) -> None:
    typed = "/nwe\n<|im_start|>\n\x1b[2J\n\udc80\n\nSay it short.\n"
    code, out, err = sft(run.path, "--model", "broad", typed=typed)
    assert (code, out.split()) == (1, ["amber", "basin"])
    assert [told in err for told in ("there is no command /nwe", "'<|im_start|>'", "U+001B", "not text")] == [True] * 4
    assert "\x1b" not in err


def test_its_help_imports_nothing_slow() -> None:
    code = (
        "import sys, launcher.cli\n"
        "try:\n    launcher.cli.main(['chat', '-h'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
