"""`sft preflight` on one machine by itself: without Ray, and what is wrong as one message and exit code 2."""

import json
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.preflight.checks import check
from sft.config import FromConfig
from sft.job_config import load_job
from tests.conftest import SmallRecords

CONFIG = """
run: {{name: one, dir: {folder}/run}}
model: {{path: {model}, dtype: float32}}
data: {{cache_dir: {folder}/cache, sources: [{{name: lists, path: {prompts}, format: prompt_completion}}]}}
stages: [{{name: broad, budget: {{steps: 4}}, optimizer: {{lr: 1.0e-4}}}}]
"""


@pytest.fixture
def config(tmp_path: Path, tiny_model_dir: Path, small_records: SmallRecords, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, model=tiny_model_dir, prompts=small_records.prompts))
    return path


def test_a_machine_that_is_right_is_a_row_and_nothing_is_left(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preflight", str(config)]) == 0
    out, err = capsys.readouterr()
    assert "this machine" in out
    assert out.splitlines()[-1].startswith("Preflight of 1 node in ")
    assert out.endswith(": nothing is wrong.\n")
    assert err == ""
    assert list(tmp_path.iterdir()) == [config]


def test_all_that_is_wrong_is_said_at_once_as_a_table_and_as_json(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wrong = [f"run.dir={config}/run", f"checkpoint.dir={config}/checkpoints", "cluster.gpus_per_worker=1"]
    assert main(["preflight", str(config), *wrong]) == 2
    out = capsys.readouterr().out
    texts = (
        f"run.dir ({config}/run) cannot be written: Not a directory",
        f"checkpoint.dir ({config}/checkpoints) cannot be written: Not a directory",
        "the GPUs cannot be seen: nvidia-smi cannot be started: No such file or directory",
    )
    for text in texts:
        assert out.count(text) == 1
    assert main(["preflight", "--json", str(config), *wrong]) == 2
    told = json.loads(capsys.readouterr().out)
    errors = [finding["text"] for finding in told["findings"] if finding["kind"] == "error"]
    assert all(any(text in error for error in errors) for text in texts)
    assert told["all_reduce"] is None
    assert len(told["nodes"]) == 1


def test_a_checkpoint_that_the_run_begins_with_is_looked_for(config: Path, tmp_path: Path) -> None:
    job = load_job(config)
    start = FromConfig(run=tmp_path / "old", stage="broad", step=9, checkpoints=str(tmp_path / "checkpoints"))
    job = job.model_copy(update={"sft": job.sft.model_copy(update={"from_": start})})
    path = tmp_path / "checkpoints" / "step-00000009"
    (error,) = check(job).errors
    assert error.text.endswith(f": from.checkpoints ({path}) is not there")
    path.mkdir(parents=True)
    assert check(job).errors == []


def test_it_comes_before_anything_is_prepared_unless_it_is_switched_off(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [f"checkpoint.dir={config}/checkpoints", f"data.sources.lists.path={tmp_path}/none.jsonl"]
    assert main(["train", str(config), *wrong]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Preflight of 1 node in ")
    assert f"  files: {err.split('files: ')[1].split(':')[0]}: checkpoint.dir ({config}/checkpoints) cannot be" in err
    assert main(["train", str(config), *wrong, "cluster.preflight=false"]) == 2
    assert capsys.readouterr().err.startswith("source lists: there is no file")
