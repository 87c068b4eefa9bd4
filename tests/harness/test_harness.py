"""lm-evaluation-harness asks a tiny model the tasks of a folder, without a network: the model's answers are those of
plain transformers to the prompts of training, and a task that fails costs that task.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from launcher.cli import main
from sft.errors import UserError
from sft.harness.tasks import identity_of, read_tasks
from tests.conftest import WORDS
from tests.forked_ranks import warm_command
from tests.questions.asked import config_of

TASKS: dict[str, Any] = {
    "pick": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{options}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "say": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "shown": {
        "output_type": "generate_until",
        "num_fewshot": 2,
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 1, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "away": {"dataset_path": "nobody/nothing", "dataset_kwargs": {}},
    "unsafe": {"output_type": "generate_until", "unsafe_code": True},
}
NUM, LIMIT = 12, 8
ASKED = "requests"
"""The harness says how many it makes while a model is asked."""


class Asked(NamedTuple):
    folder: Path
    arguments: list[str]
    exit_code: int
    text: str
    scores: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


def write_tasks(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    draw = random.Random(3)
    records = []
    for number in range(NUM):
        options = draw.sample(WORDS, 3)
        records.append(
            {"question": f"Which of {', '.join(options)}?", "options": options, "answer": options[number % 3]}
        )
    data = folder / "records.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    usual = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data), "train": str(data)}},
        "test_split": "test",
        "fewshot_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
    }
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **usual, **task}))
    deadly = json.dumps({"task": "deadly", **usual, "output_type": "generate_until"}).replace(
        '"{{question}}"', "!function own.die"
    )
    (folder / "deadly.yaml").write_text(deadly)
    (folder / "own.py").write_text("import os\n\n\ndef die(doc):\n    os.kill(os.getpid(), 9)\n")
    return records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return write_tasks(tmp_path_factory.getbasetemp() / "harness_tasks")


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, records: list[dict[str, Any]]
) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("harness")
    config = {
        "run": {"name": "harness", "dir": str(folder / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {"sources": [{"name": "s", "path": "there/is/none.jsonl", "format": "messages"}]},
        "stages": [{"name": "all", "budget": {"epochs": 1}, "optimizer": {"lr": 1e-3}}],
        "cluster": {"gpus_per_worker": 0},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    include = str(tmp_path_factory.getbasetemp() / "harness_tasks")
    arguments = ["evaluate", str(folder / "config.yaml"), "--model", "base", "--harness-include", include]
    arguments += ["--harness-limit", str(LIMIT), "--harness"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sft.harness.process.own_module", warm_command)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "110")
        out = folder / "out"
        code = main_into(out, [*arguments, "pick,say,shown,away,unsafe,deadly,say"])
        results = [path for path in (folder / "run").rglob("*.json")]
        found = [json.loads(path.read_text()) for path in results]
        scores = {score["task"]: score for content in found for score in content["scores"]}
        lines = [line for path in (folder / "run").rglob("*.samples.jsonl") for line in path.read_text().splitlines()]
        samples: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            sample = json.loads(line)
            samples.setdefault(sample["task"], []).append(sample)
        yield Asked(folder, arguments, code, out.read_text(), scores, samples)


def main_into(path: Path, arguments: list[str]) -> int:
    """The exit code of the command, whose output goes to a file."""
    with path.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", file)
        return main(arguments)


def prompts_of(model: Path, records: list[dict[str, Any]]) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns = [[{"role": "user", "content": record["question"]}] for record in records[:LIMIT]]
    return [str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)) for turn in turns]


def test_the_model_chooses_and_writes_what_it_does_behind_the_prompts_of_training(
    asked: Asked, tiny_model_dir: Path, records: list[dict[str, Any]]
) -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def likelihood(prompt: str, option: str) -> float:
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(prompt + option, add_special_tokens=False)["input_ids"]])
        logs = torch.log_softmax(model(ids).logits[0, :-1], -1)
        return float(logs[range(ids.shape[1] - 1), ids[0, 1:]][start - 1 :].sum())

    right = {}
    with torch.inference_mode():
        for i, (prompt, record) in enumerate(zip(prompts_of(tiny_model_dir, records), records, strict=False)):
            values = [likelihood(prompt, option) for option in record["options"]]
            right[str(i)] = float(record["options"][values.index(max(values))] == record["answer"])
            ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
            written = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=stop, pad_token_id=0)
            text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).partition("\n")[0]
            assert asked.samples["say"][i]["filtered_resps"] == [text]
            assert asked.samples["say"][i]["arguments"][0][0] == prompt
    assert asked.scores["pick"]["examples"] == right
    assert asked.scores["pick"]["value"] == pytest.approx(sum(right.values()) / LIMIT)
    assert (asked.scores["pick"]["num_examples"], asked.scores["pick"]["shots"]) == (LIMIT, 0)


def test_a_task_that_fails_costs_that_task_and_is_told_in_words(asked: Asked) -> None:
    text = " ".join(asked.text.split())
    assert asked.exit_code == 1
    assert "pick 0 acc" in text
    assert "say 0 exact_match" in text
    assert "base: away: its data is not on this machine, and the Hub is not asked (HF_HUB_OFFLINE)" in text
    assert "nobody/nothing" in text
    assert "base: unsafe: it runs code that the model writes, and the harness does so without a sandbox" in text
    assert "base: the process of lm-evaluation-harness was killed" in text
    assert "Traceback" not in text


def test_examples_are_earlier_turns_as_many_as_the_task_says(asked: Asked) -> None:
    for sample in asked.samples["shown"]:
        prompt = sample["arguments"][0][0]
        assert prompt.count("<|im_start|>user") == 3
        assert prompt.endswith("<|im_start|>assistant\n")


def test_more_examples_than_a_task_has_are_refused_before_the_model_is_asked(asked: Asked) -> None:
    [log] = (asked.folder / "run").rglob("harness.log")
    before = log.read_text()
    assert ASKED in before
    assert main_into(asked.folder / "many", [*asked.arguments, "say", "--harness-shots", str(NUM + 1)]) == 1
    told = " ".join((asked.folder / "many").read_text().split())
    assert f"say: --harness-shots {NUM + 1}: say has {NUM} examples to show: give {NUM} or fewer" in told
    assert ASKED not in log.read_text().removeprefix(before)


def test_what_is_done_is_not_asked_again(asked: Asked) -> None:
    """No process is started: what it prints would be in its log."""
    [log] = (asked.folder / "run").rglob("harness.log")
    before = log.read_bytes()
    assert main_into(asked.folder / "again", [*asked.arguments, "pick,say"]) == 0
    assert "exact_match" in (asked.folder / "again").read_text()
    assert log.read_bytes() == before


def test_results_are_those_of_the_same_files_settings_and_template(tmp_path: Path, tiny_model_dir: Path) -> None:
    config, folder = config_of(tmp_path, tiny_model_dir, [{"name": "s", "path": "s.jsonl"}]), tmp_path / "tasks"
    write_tasks(folder)

    def identity(limit: int | None = None, shots: int | None = None, template: str = "t") -> dict[str, Any]:
        return identity_of(read_tasks(f"{folder}/", None, limit, shots), config, template)

    first = identity()
    assert first == identity()
    others = [identity(limit=3), identity(shots=1), identity(template="u")]
    (folder / "own.py").write_text("another = 1\n")
    others.append(identity())
    assert first not in others
    assert first["versions"]["lm_eval"]


@pytest.mark.parametrize(
    ("text", "include", "limit", "shots", "told"),
    [
        (" , ", None, None, None, "name tasks, such as --harness arc_easy"),
        ("./nowhere", None, None, None, "there is no folder .*nowhere"),
        ("pick", "there/is/none", None, None, "--harness-include: there is no folder"),
        ("pick", None, 0, None, "--harness-limit 0: .* give 1 or more"),
        ("pick", None, None, -1, "--harness-shots -1: .* give 0 or more"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(
    text: str, include: str | None, limit: int | None, shots: int | None, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        read_tasks(text, include, limit, shots)


def test_a_folder_is_written_with_a_slash_and_holds_task_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds no task file"):
        read_tasks("./", None, None, None)
    Path("pick.yaml").write_text("task: pick")
    tasks = read_tasks("arc_*, ./ ,pick,pick", None, 5, None)
    assert tasks.terms == ("arc_*", str(tmp_path), "pick")
    assert tasks.include == (str(tmp_path),)
    Path("deep").mkdir()
    Path("deep/broken.yaml").write_text("task: broken\n  metric: [1,\n")
    Path("other.yaml").write_text("task: [other\n")
    with pytest.raises(UserError, match=r"(?s)deep/broken.yaml is no YAML: .*line 2.*other.yaml is no YAML"):
        read_tasks("./", None, None, None)


def test_options_of_the_harness_need_it_and_go_with_whole_models(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    config = asked.arguments[1]
    assert main(["evaluate", config, "--harness-limit", "3"]) == 2
    assert "need --harness TASKS" in capsys.readouterr().err
    assert main(["evaluate", config, "--harness", "pick", "--endpoint", "http://127.0.0.1:1/v1"]) == 2
    assert "--harness asks whole models alone" in capsys.readouterr().err


@pytest.mark.long
def test_a_name_that_the_harness_does_not_know_is_told_with_those_near_it(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Long, since the harness reads its thousands of files."""
    assert main([*asked.arguments, "pick,arc_eassy,pikc"]) == 2
    told = capsys.readouterr().err
    assert "has no task arc_eassy; near it: arc_easy" in told
    assert "has no task pikc; near it: pick" in told
