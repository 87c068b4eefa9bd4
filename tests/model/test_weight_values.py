"""Weights that are no numbers are found before a machine is held, with the names of their tensors."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sft.errors import UserError
from sft.model.weight_values import check_values


def spoiled(model: Path, folder: Path, name: str, where: int, value: float, dtype: torch.dtype) -> str:
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    tensors = {key: tensor.to(dtype) for key, tensor in load_file(file).items()}
    tensors[name].view(-1)[where] = value
    # Offsets in a file need not be multiples of anything.
    save_file(tensors, file, metadata={"format": "pt", "odd": "x"})
    return str(folder)


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("where", "value"), [(0, float("nan")), (-1, float("inf")), (77, float("-inf"))])
def test_one_weight_that_is_no_number_is_found_with_its_tensor(
    tiny_model_dir: Path, tmp_path: Path, dtype: torch.dtype, where: int, value: float
) -> None:
    path = spoiled(tiny_model_dir, tmp_path / "model", NAME, where, value, dtype)
    with pytest.raises(UserError, match=re.escape(f"{NAME}: 1 of 8,192")) as error:
        check_values(path)
    assert str(error.value).count(" of 8,192") == 1


@pytest.mark.parametrize("value", [0.0, -0.0, 65504.0, 6e-8])
def test_numbers_are_fine(tiny_model_dir: Path, tmp_path: Path, value: float) -> None:
    check_values(spoiled(tiny_model_dir, tmp_path / "model", NAME, 5, value, torch.float16))


def test_what_is_not_here_is_not_looked_at() -> None:
    check_values("owner/model")
