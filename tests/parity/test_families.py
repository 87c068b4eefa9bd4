"""Families whose classes compute otherwise are no false alarms: their exported folders are equal."""

from pathlib import Path

import pytest
import torch

from sft.run_folder import RunFolder
from tests.conftest import SmallRecords, TokenizerDir
from tests.model.tiny_checkpoints import write_checkpoint
from tests.parity.exported_run import checked, in_this_process, train_run

FAMILIES = [
    *[(family, "bfloat16") for family in ("gemma3", "qwen3_moe", "gpt2", "deepseek_v3", "ernie4_5_moe")],
    ("phi3", "float32"),
]


@pytest.mark.long
@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_an_exported_folder_of_the_family_is_equal(
    family: str,
    dtype: str,
    tokenizer_dir: TokenizerDir,
    small_records: SmallRecords,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = write_checkpoint(family, tmp_path / "base", getattr(torch, dtype))
    model = {"dtype": dtype, "tokenizer": str(tokenizer_dir("headers"))}
    run: RunFolder = train_run(tmp_path, base, small_records, 1, checkpoint={"check_export": False}, model=model)
    in_this_process(monkeypatch)
    result = checked(run, run.stage(0, "broad").model)
    assert result.is_equal, [check.first for check in result.checks]
