"""The whole path of a micro-batch on a device that is not the CPU: no tensor lies elsewhere, the waits are known."""

import numpy as np
import pytest
import torch

from sft.data.collate import Batch, collate, collate_rows
from sft.model.attention import attention_for
from sft.model.loss import SupervisedNll, all_of, is_first_choice, sums_by_segment, token_nll
from sft.schema import Pack
from sft.training.determinism import choose_experts
from tests.model.test_packed_models import build
from tests.pretended_gpu import DEVICE, OnDevice, PretendedGpu, moved

LENGTHS = [5, 3, 9, 1, 2, 2, 4, 1]


WAITS = {
    "packed": {"_to_copy": 1},  # how long the segments are, once for all layers; FlashAttention does not ask
    "empty": {"_to_copy": 1},
    "one_example": {"_local_scalar_dense": 1},  # transformers asks whether the positions begin again
}
"""Of the host for the device in a forward and a backward pass, by layout."""


def batch_of(rows: str) -> Batch:
    if rows == "empty":
        return collate([None])
    mask = np.concatenate([np.arange(n) > 0 for n in LENGTHS])
    pack = Pack(0, np.arange(len(LENGTHS)), np.arange(len(mask)) + 7, mask, np.cumsum([0, *LENGTHS]))
    return collate([pack]) if rows == "packed" else collate_rows([pack], 1000)[0]


@pytest.mark.parametrize("rows", WAITS)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "mixtral"])
def test_no_tensor_of_a_micro_batch_lies_elsewhere_and_the_host_hardly_waits(family: str, rows: str) -> None:
    batch = batch_of(rows)
    plain = SupervisedNll(build(family, attention_for(batch.layout) or "eager"), 8)
    choose_experts(plain.model)  # the other ways count tokens by what the CPU has for floats only
    expected = plain(batch)
    expected.sum().backward()
    gradient = next(plain.parameters()).grad
    plain.zero_grad()
    with PretendedGpu() as gpu:
        module, there = moved(plain), batch.to(DEVICE)
        gpu.waits.clear()
        nll_S = module(there)
        nll_S.sum().backward()
        waits = dict(gpu.waits)
        grad = next(module.parameters()).grad
        with torch.no_grad():
            sums = sums_by_segment(module(there, measure=all_of([token_nll, is_first_choice])), there)
        assert isinstance(nll_S, OnDevice)
        assert isinstance(grad, OnDevice)
        assert isinstance(sums, OnDevice)
    torch.testing.assert_close(nll_S.held, expected.detach(), rtol=1e-5, atol=1e-5)
    assert gradient is not None
    torch.testing.assert_close(grad.held, gradient, rtol=1e-4, atol=1e-5)
    if family in ("llama", "qwen3"):  # experts count their tokens; Gemma 2 asks for each kind of attention
        assert waits == WAITS[rows]


def test_a_tensor_that_lies_elsewhere_is_found() -> None:
    with PretendedGpu() as gpu:
        there = torch.arange(3, device=DEVICE)
        with pytest.raises(RuntimeError, match="1 tensors on the device, and 1 on the CPU"):
            there + torch.arange(3)
        assert (there + 1)[torch.tensor([2])].cpu().tolist() == [3]
        assert int(there.sum()) == 3
        assert len(there[there > 0]) == 2
        assert len(there.repeat_interleave(there)) == 3
    assert gpu.waits == {"_to_copy": 1, "_local_scalar_dense": 1, "index": 1, "repeat_interleave": 1}
