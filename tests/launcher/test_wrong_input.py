"""What users get wrong: one clear message, exit code 2, nothing half-written, before any worker is started."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from sft.run_lock import run_lock
from tests.conftest import SmallRecords
from tests.forked_ranks import warm_command

ROOT = Path(__file__).parents[2]
Change = Callable[[dict[str, Any], Path], None]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that a model is looked at once, which takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def content(tiny_model_dir: Path, small_records: SmallRecords, cache: Path, tmp_path: Path) -> dict[str, Any]:
    shutil.copy(small_records.instructions, tmp_path / "words.jsonl")
    source = {
        "name": "words",
        "path": str(tmp_path / "words.jsonl"),
        "format": "instruction",
        "task": {"column": "task"},
    }
    return {
        "run": {"name": "wrong", "dir": str(tmp_path / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {"sources": [source], "cache_dir": str(cache), "max_len_tokens": 256},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "train": {"pack_len_tokens": 256, "packs_per_step": 2},
    }


def written(content: dict[str, Any], folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def append(name: str, line: str) -> Change:
    def change(content: dict[str, Any], folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return change


def put(path: str, value: Any) -> Change:
    def change(content: dict[str, Any], folder: Path) -> None:
        *parents, last = path.split(".")
        node: Any = content
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[last] = value.format(folder=folder) if isinstance(value, str) else value

    return change


def model_without_weights(content: dict[str, Any], folder: Path) -> None:
    shutil.copytree(content["model"]["path"], folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    content["model"]["path"] = str(folder / "model")


def only_a_long_record(content: dict[str, Any], folder: Path) -> None:
    long = {"instruction": "Count.", "output": "one two three " * 200, "task": "count"}
    (folder / "words.jsonl").write_text(json.dumps(long))


def template_that_ignores_answers(content: dict[str, Any], folder: Path) -> None:
    text = "{% for m in messages if m['role'] != 'assistant' %}{{ m['content'] }}<|im_end|>{% endfor %}"
    (folder / "template.jinja").write_text(text)
    content["model"]["chat_template"] = str(folder / "template.jinja")


def weights_that_are_no_numbers(content: dict[str, Any], folder: Path) -> None:
    shutil.copytree(content["model"]["path"], folder / "model")
    content["model"]["path"] = str(folder / "model")
    file = folder / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\xff\xff\xff\xff")


EMPTY_ANSWER = json.dumps({"instruction": "Say nothing.", "input": "", "output": " ", "task": "copy"})
ALIEN = json.dumps({"question": "Who?", "answer": "You."})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            put("data.sources.0.path", "{folder}/word.jsonl"),
            ["there is no file", "word.jsonl", "near it: words.jsonl"],
            id="missing file",
        ),
        pytest.param(
            append("words.jsonl", '{"instruction": "x", "output": '),
            ["words.jsonl:121", "broken JSON", "quarantine"],
            id="broken JSON line",
        ),
        pytest.param(
            put("data.sources.0.columns", {"output": "response"}),
            ["no column 'response'", "instruction, input, output, task"],
            id="missing column",
        ),
        pytest.param(append("words.jsonl", EMPTY_ANSWER), ["words.jsonl:121", "'output' is empty"], id="empty answer"),
        pytest.param(append("words.jsonl", ALIEN), ["words.jsonl:121", "is missing"], id="record of another kind"),
        pytest.param(
            template_that_ignores_answers,
            ["does not show where the answer is", "the answer:", "the template's text:", "model.chat_template"],
            id="no template derivable",
        ),
        pytest.param(
            put("stages.0.mixture", {"rates": "weights", "weights": {"copi": 1}}),
            ["stages.0.mixture.weights", "no task 'copi'", "Did you mean 'copy'"],
            id="unknown task in a mixture",
        ),
        pytest.param(
            put("data.holdout.tasks", ["sorting"]), ["no task 'sorting'", "'sort'"], id="unknown held-out task"
        ),
        pytest.param(only_a_long_record, ["No example is left", "1", "max_len_tokens"], id="every example too long"),
        pytest.param(
            put("train.pack_len_tokens", 64),
            ["train.pack_len_tokens: 64", "data.max_len_tokens: 256"],
            id="pack length shorter than examples",
        ),
        pytest.param(model_without_weights, ["has no weights", "config.json"], id="model folder without weights"),
        pytest.param(weights_that_are_no_numbers, ["NaN or infinite", ": 1 of "], id="a weight that is no number"),
        pytest.param(
            put("stages.0.name", "a" * 300), ["stages.0.name", "must have at most 100 characters"], id="very long name"
        ),
        pytest.param(put("model.path", "{folder}/nowhere"), ["there is no folder"], id="no model folder"),
        pytest.param(put("model.pth", "x"), ["model.pth", "did you mean `path`"], id="misspelt key"),
    ],
)
def test_one_message_and_exit_code_2(
    change: Change, said: list[str], content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(content, tmp_path)
    config = written(content, tmp_path)
    assert main(["train", str(config)]) == 2
    _out, message = capfd.readouterr()
    assert "Traceback" not in message
    for part in said:
        assert part in message
    leftovers = [p.name for p in (tmp_path / "run").rglob("*") if p.is_file()] if (tmp_path / "run").exists() else []
    assert set(leftovers) <= {".planning.lock", "manifest.json"}, "no more than that it is a run's folder"


def test_a_run_with_another_config_is_refused_only_once_it_has_trained(
    content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(content, tmp_path)
    assert main(["prepare", str(config)]) == 0
    assert main(["prepare", str(config), "run.seed=4", "train.packs_per_step=3"]) == 0, "nothing was trained yet"
    trained = tmp_path / "run" / "stages" / "0-only" / "metrics.jsonl"
    trained.write_text("")
    assert main(["prepare", str(config), "run.seed=5", "train.packs_per_step=3"]) == 2
    assert "run.seed: was 4, now 5" in capfd.readouterr().err
    assert main(["prepare", str(config), "run.seed=4", "train.packs_per_step=3", "checkpoint.keep_last=9"]) == 0


def test_changed_data_is_refused_with_the_difference_before_it_is_prepared(
    content: dict[str, Any], cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(content, tmp_path)
    assert main(["prepare", str(config)]) == 0
    (tmp_path / "run" / "stages" / "0-only" / "metrics.jsonl").write_text("")
    stores = sorted((cache / "tokens").iterdir())
    # What is measured, and where the same data lies, may change.
    shutil.copy(tmp_path / "words.jsonl", tmp_path / "moved.jsonl")
    moved = [f"data.sources.words.path={tmp_path / 'moved.jsonl'}", "evaluate.max_examples_per_task=3"]
    assert main(["prepare", str(config), *moved]) == 0
    append("words.jsonl", json.dumps({"instruction": "Copy.", "output": "amber", "task": "copy"}))(content, tmp_path)
    capfd.readouterr()
    assert main(["prepare", str(config)]) == 2
    message = capfd.readouterr().err
    assert "data.sources.words.content: planned" in message
    assert sorted((cache / "tokens").iterdir()) == stores


MACHINES: dict[str, Any] = {
    "cluster": {"workers": [2, 4], "cpus_per_worker": 2},
    "slurm": {"workers_per_node": 2, "partition": "gpu"},
    "ray": {"python": "/opt/python", "driver_resources": {"CPU": 1}},
    "kubernetes": {"image": "sft", "volumes": {"shared": "/shared"}, "memory_gib_per_pod": 64},
}


def rank_of_torchrun(config: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """The first of two ranks, as far as it comes by itself."""
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "PYTHONPATH": str(ROOT)}
    command = warm_command("sft.training", str(config), *overrides)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=config.parent)


def test_every_way_in_says_the_same_of_a_wrong_config(
    content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(content | MACHINES, tmp_path)
    wrong = ["cluster.hang_timeout_seconds=0", "slurm.workers_per_node=0", "ray.pyhton=x", "kubernetes={}"]
    assert main(["plan", str(config), *wrong]) == 2
    message = capfd.readouterr().err
    assert f"{config}: 6 problems" in message
    for part in ("cluster.hang_timeout_seconds: 0", "ray.pyhton", "kubernetes.image", "in 'ray.pyhton=x'"):
        assert part in message
    done = rank_of_torchrun(config, *wrong)
    assert (done.returncode, done.stderr) == (2, message)


def test_a_run_folder_that_another_driver_works_in_is_refused(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_lock(tmp_path / "run" / "driver.lock", on_lost=pytest.fail):
        for verb in ("train", "prepare"):
            assert main([verb, str(written(content, tmp_path))]) == 2
            assert f"is in use by another job: process {os.getpid()} on " in capsys.readouterr().err
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["driver.lock"]


def test_a_config_that_lies_where_the_run_would_write_its_own_is_kept(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["run"]["dir"] = str(tmp_path)
    config = written(content, tmp_path)
    before = config.read_bytes()
    (tmp_path / "report.html").write_text("mine")
    for verb in ("prepare", "train"):
        assert main([verb, str(config)]) == 2
        assert "is not the folder of a run, and holds config.yaml, report.html, which" in capsys.readouterr().err
    for verb in ("status", "verify", "report"):
        assert main([verb, str(tmp_path)]) == 2
        assert "is not the folder of a run: there is no manifest.json of a run in it\n" in capsys.readouterr().err
    assert config.read_bytes() == before
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("verb", ["status", "verify", "report"])
def test_a_config_in_the_place_of_a_run_is_told_where_its_run_is(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    config, run = written(content, tmp_path), Path(content["run"]["dir"])
    run.mkdir()
    (run / "manifest.json").write_text('{"versions": {}}')
    for given in (tmp_path, config):
        assert main([verb, str(given)]) == 2
        assert capsys.readouterr().err.endswith(f"of a run in it. The run of {config} is in {run}\n")
