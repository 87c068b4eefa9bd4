"""`sft score`: measures by the workers that there are, goes on, shows tasks side by side and writes a line for each."""

import json
import re
from pathlib import Path

import pytest
import yaml

from launcher.cli import main
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that nothing was trained for."""
    folder = tmp_path_factory.mktemp("score")
    path = folder / "job.yaml"
    job = two_stage_job("job", folder, tiny_model_dir, small_records, {"broad": 1, "words": 1})
    path.write_text(yaml.safe_dump({**job, "cluster": {"workers": 1}}))
    return path


def test_a_sample_is_measured_then_the_rest_and_the_answers_that_prompts_do_not_help_are_counted(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "losses.jsonl"
    assert main(["score", str(config), "--num", "20", "--out", str(out)]) == 0
    first = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(first) == 20
    assert "measuring 20 examples: base" in capsys.readouterr().out
    assert main(["score", str(config), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    num = len(lines)
    assert f"measuring {num - 20} examples" in said
    assert {line["row"] for line in first} < {line["row"] for line in lines} == set(range(num))
    assert [line for line in lines if line["row"] in {one["row"] for one in first}] == first
    unhelped = sum(line["models"]["base"]["ifd"] >= 1 for line in lines)
    (total,) = [row for row in said.splitlines() if row.strip().startswith("│ all")]
    assert f"{unhelped} ({unhelped / num:.0%})" in total
    assert {line["task"] for line in lines} == {"copy", "reverse", "count", "sort", "next"}
    assert main(["score", str(config)]) == 0
    assert "measuring" not in capsys.readouterr().out, "all is there"


def test_models_stand_side_by_side_and_a_model_is_no_better_than_itself(
    config: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(config), "--model", "base", "--model", str(tiny_model_dir), "--num", "30"]) == 0
    text = capsys.readouterr().out
    assert "+0.000" in text
    assert "-0.0" not in text.replace("-0.000", "")


def test_inspect_and_the_report_show_it(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(config)]) == 0
    assert main(["prepare", str(config)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(config), "--num", "1"]) == 0
    assert re.search(r"base: loss \d\.\d\d, IFD \d\.\d\d", capsys.readouterr().out)
    assert main(["report", str(config.with_name("job"))]) == 0
    page = config.with_name("job").joinpath("report.html").read_text()
    assert "Difficulty of the examples" in page
    assert 'id="difficulty-' in page


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_run_folder_that_cannot_be_written_is_one_message(
    config: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, str(config), f"run.dir={config}/run"]) == 2
    said = capsys.readouterr()
    assert f"run.dir: {config}/run/evaluations/" in said.err
    assert "cannot be written: Not a directory" in said.err


def test_a_run_folder_is_tried_before_the_data_is_prepared(config: Path, tmp_path: Path) -> None:
    assert main(["score", str(config), f"run.dir={config}/run", f"data.cache_dir={tmp_path}"]) == 2
    assert not [*tmp_path.glob("tokens/*")]


def test_a_model_that_is_not_there_is_one_message(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(config), "--model", "words"]) == 2
    assert "this stage of" in capsys.readouterr().err
