"""What `sft prepare` says of a job beside its counts."""

import json
from pathlib import Path

import pytest

from launcher.cli import main
from tests.conftest import SmallRecords


def test_it_says_what_is_asked_and_which_answers_have_less_room(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = {
        "run": {"name": "asked", "dir": str(tmp_path / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {
            "sources": [{"name": "words", "path": str(small_records.instructions), "task": {"column": "task"}}],
            "cache_dir": str(tmp_path / "cache"),
            "max_len_tokens": 256,
        },
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "train": {"pack_len_tokens": 256, "packs_per_step": 2},
        "evaluate": {"answers_per_task": 2, "max_new_tokens": 250},
    }
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(content))
    assert main(["prepare", str(config)]) == 0
    said = capfd.readouterr().out
    assert " prompts are asked" in said
    assert " may have " in said
    assert "evaluate.max_new_tokens=250: more do not fit behind the prompt in data.max_len_tokens=256" in said
