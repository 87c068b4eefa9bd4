"""A local model makes records: on one worker in this process, and on several through Ray."""

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from tests.conftest import SmallRecords
from tests.construction.teaching import lines_of

MAGPIE = {"kind": "magpie", "num": 40, "tasks": ["copy", "sort"], "temperature": 2.0, "answer_temperature": 2.0}


@pytest.fixture
def content(tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path) -> dict[str, Any]:
    """A config without a teacher: its own model is asked."""
    return {
        "run": {"name": "made", "dir": str(tmp_path / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {
            "sources": [{"name": "words", "path": str(small_records.instructions), "task": {"column": "task"}}],
            "cache_dir": str(tmp_path / "cache"),
            "max_len_tokens": 256,
            "holdout": {"share": 0.3},
        },
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "construct": {
            "recipes": [{**MAGPIE, "max_tokens": 160, "shots": 0}],
            "filters": {"form": False, "copies": False},
            "out": str(tmp_path / "made"),
        },
    }


def written(content: dict[str, Any], folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def test_without_a_teacher_the_model_of_the_config_makes_records(
    content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["construct", written(content, tmp_path)]) == 0
    print(capfd.readouterr().out)
    out = Path(content["construct"]["out"])
    print(lines_of(out / "records.jsonl")[:2])
    print((out / "manifest.json").read_text())
    assert 0
