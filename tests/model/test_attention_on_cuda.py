"""Which attention a GPU would compute with, and that no tensor lies elsewhere; with tensors that say they are there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sft.errors import UserError
from sft.model import flash_attention, segment_attention
from sft.model.attention import packed_attention

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
BOUNDS = [0, 1, 5, 12]


def packed(device: str, dtype: torch.dtype, width: int, value_width: int | None = None) -> list[torch.Tensor]:
    """Query, key and value of three segments, with four heads of queries and two of keys."""
    widths = ((4, width), (2, width), (2, value_width or width))
    return [torch.empty(1, heads, BOUNDS[-1], w, dtype=dtype, device=device) for heads, w in widths]


def attend_on(device: str, dtype: torch.dtype, width: int, value_width: int | None, window: int | None) -> None:
    query, key, value = packed(device, dtype, width, value_width)
    bounds = torch.empty(len(BOUNDS), dtype=torch.int32, device=device)
    out, _ = packed_attention(
        nn.Identity(), query, key, value, None, sliding_window=window, cu_seq_lens_q=bounds, max_length_q=7
    )
    assert out.device.type == device
    assert out.shape == (1, BOUNDS[-1], 4, value_width or width)


@contextmanager
def gpu_of(capability: tuple[int, int]) -> Iterator[None]:
    flash_attention._has_flash.cache_clear()
    with patch("torch.cuda.get_device_capability", lambda device: capability):
        yield
    flash_attention._has_flash.cache_clear()


def suits_flash(capability: tuple[int, int], dtype: torch.dtype, width: int) -> bool:
    with gpu_of(capability), FakeTensorMode():
        return flash_attention.suits_flash(*packed("cuda", dtype, width))


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("width", [8, 64, 128, 256])
def test_half_precision_suits_flash_attention(capability: tuple[int, int], dtype: torch.dtype, width: int) -> None:
    assert suits_flash(capability, dtype, width)


@pytest.mark.parametrize(
    ("dtype", "width", "capability"),
    [
        pytest.param(F32, 64, (9, 0), id="float32"),
        pytest.param(BF16, 264, (9, 0), id="wide"),
        pytest.param(F16, 64, (7, 5), id="Turing"),
    ],
)
def test_the_rest_does_not(dtype: torch.dtype, width: int, capability: tuple[int, int]) -> None:
    assert not suits_flash(capability, dtype, width)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("width", "value_width"), [(64, None), (192, 128), (68, None)])
def test_flash_attention_takes_grouped_heads_windows_and_other_widths(
    window: int | None, width: int, value_width: int | None
) -> None:
    with gpu_of((9, 0)), FakeTensorMode(allow_non_fake_inputs=True):
        attend_on("cuda", BF16, width, value_width, window)


# A build of torch for the CPU cannot do all with tensors of a GPU; those of `meta` are as far from the CPU's.
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("value_width", [None, 32])
@pytest.mark.parametrize("lengths", [[1, 4, 7], [1, 1, 1, 5, 1, 1, 1, 1]])
def test_without_flash_attention_all_tensors_lie_on_one_device(
    lengths: list[int], window: int | None, value_width: int | None
) -> None:
    # They have no values that could be read. As many short segments are computed in groups.
    with patch.object(segment_attention, "_lengths", lambda bounds: lengths), FakeTensorMode():
        attend_on("meta", F32, 64, value_width, window)


def put_in_place(asked: Any, capability: tuple[int, int], is_installed: bool = True) -> list[str]:
    """What torch is told to use."""
    told: list[str] = []
    with (
        gpu_of(capability),
        patch.object(flash_attention, "_is_installed", lambda module: is_installed),
        patch("torch.nn.attention.activate_flash_attention_impl", told.append),
    ):
        flash_attention.use_flash(asked, torch.device("cuda", 0))
    return told


def test_a_later_flash_attention_is_used_where_it_runs() -> None:
    assert put_in_place("auto", (9, 0)) == put_in_place(3, (9, 0)) == ["FA3"]
    assert put_in_place(4, (9, 0)) == put_in_place(4, (10, 0)) == ["FA4"]
    nothing = [put_in_place(2, (9, 0)), put_in_place("auto", (8, 0)), put_in_place("auto", (9, 0), False)]
    assert nothing == [[], [], []]


@pytest.mark.parametrize(
    ("capability", "is_installed", "reason"),
    [((8, 0), True, "compute capability 9.0, and this one has 8"), ((9, 0), False, "flash_attn_interface is not")],
)
def test_one_that_is_asked_for_and_cannot_be_used_is_refused(
    capability: tuple[int, int], is_installed: bool, reason: str
) -> None:
    with pytest.raises(UserError, match=f"flash_attention: 3 cannot be used: .*{reason}"):
        put_in_place(3, capability, is_installed)
    with pytest.raises(UserError, match="3 needs a GPU"):
        flash_attention.use_flash(3, torch.device("cpu"))
