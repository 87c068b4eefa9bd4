"""Tensors are written one by one, in any order, as safetensors that everybody can read."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sft.checkpoint.safetensors_file import SafetensorsWriter, TensorSpec
from sft.model.weight_files import read_headers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", range(3))
def test_what_is_written_in_any_order_is_read_back(tmp_path: Path, dtype: torch.dtype, order: int) -> None:
    tensors = {"a": torch.randn(3, 5), "norm": torch.randn(7), "empty": torch.zeros(0, 2), "buffer": torch.arange(3)}
    dtypes = {**dict.fromkeys(tensors, dtype), "buffer": torch.int64}
    specs = {name: TensorSpec.of(tuple(tensor.shape), dtypes[name]) for name, tensor in tensors.items()}
    names = random.Random(order).sample(list(tensors), len(tensors))
    with SafetensorsWriter(tmp_path / "x.safetensors", specs) as file:
        for name in names:
            file.write(name, tensors[name])
    found = load_file(tmp_path / "x.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == dtypes
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.to(dtypes[name]))
    # And as raw bytes, what was read from one file into another.
    stored = read_headers([tmp_path / "x.safetensors"])
    with SafetensorsWriter(tmp_path / "y.safetensors", specs) as file:
        for name in reversed(names):
            file.write(name, stored[name].read())
    assert (tmp_path / "y.safetensors").read_bytes() == (tmp_path / "x.safetensors").read_bytes()


def test_a_tensor_of_another_shape_or_that_is_left_out_is_noticed(tmp_path: Path) -> None:
    specs = {name: TensorSpec.of((1,), torch.float32) for name in ("a", "b")}
    with (
        pytest.raises(AssertionError, match=r"b: \(2,\), and the header says \(1,\)"),
        SafetensorsWriter(tmp_path / "x.safetensors", specs) as writer,
    ):
        writer.write("b", torch.zeros(2))
    with (
        pytest.raises(AssertionError, match=r"not written: \['a'\]"),
        SafetensorsWriter(tmp_path / "x.safetensors", specs) as writer,
    ):
        writer.write("b", torch.zeros(1))
