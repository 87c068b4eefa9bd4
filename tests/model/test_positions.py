"""Examples longer than a model's table of positions are refused, those beyond its trained range noted."""

import shutil
from pathlib import Path

import pytest

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.loading import check_model
from tests.conftest import TokenizerDir
from tests.model.tiny_checkpoints import write_checkpoint


def notes(family: str, max_len_tokens: int, tokenizer: Path, folder: Path) -> list[str]:
    write_checkpoint(family, folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return check_model(ModelConfig(path=str(folder)), max_len_tokens)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_no_example_is_longer_than_the_table(family: str, tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    assert notes(family, 512, tokenizer_dir("chatml"), tmp_path / "fits") == []
    with pytest.raises(UserError, match=r"513 is more than the 512 positions .*Set data\.max_len_tokens=512"):
        notes(family, 513, tokenizer_dir("chatml"), tmp_path / "does not")


@pytest.mark.parametrize("family", ["llama", "gemma3", "deepseek_v3"])
def test_beyond_the_trained_range_there_is_a_note(family: str, tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    assert notes(family, 512, tokenizer_dir("chatml"), tmp_path / "fits") == []
    (note,) = notes(family, 600, tokenizer_dir("chatml"), tmp_path / "beyond")
    assert "was made for 512 positions" in note
    assert "max_len_tokens is 600" in note
