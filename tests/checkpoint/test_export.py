"""The model's files are dealt out by size, and written tensor by tensor as safetensors that everybody can read."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sft.checkpoint.export import SafetensorsWriter, TensorSpec, plan_files


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30), limit=st.integers(4, 200))
def test_files_partition_the_parameters_in_order(sizes: list[int], limit: int) -> None:
    specs = {f"p{i}": TensorSpec((size,), torch.bfloat16) for i, size in enumerate(sizes)}
    files = plan_files(specs, limit)
    assert [name for group in files.values() for name in group] == list(specs)
    for group in files.values():
        assert len(group) == 1 or sum(specs[name].num_bytes for name in group) <= limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_read_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.randn(3, 5), "norm": torch.randn(7), "empty": torch.zeros(0, 2), "buffer": torch.arange(3)}
    dtypes = {**dict.fromkeys(tensors, dtype), "buffer": torch.int64}
    specs = {name: TensorSpec(tuple(tensor.shape), dtypes[name]) for name, tensor in tensors.items()}
    with SafetensorsWriter(tmp_path / "x.safetensors", specs) as file:
        for name, tensor in tensors.items():
            file.append(name, tensor)
    found = load_file(tmp_path / "x.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == dtypes
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.to(dtypes[name]))


def test_a_tensor_out_of_order_is_noticed(tmp_path: Path) -> None:
    specs = dict.fromkeys(("a", "b"), TensorSpec((1,), torch.float32))
    with (
        pytest.raises(AssertionError, match="b comes where the header says a"),
        SafetensorsWriter(tmp_path / "x.safetensors", specs) as writer,
    ):
        writer.append("b", torch.zeros(1))
