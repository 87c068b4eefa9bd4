"""torch's variable-length FlashAttention: whether it takes a packed row, and the row laid out as it needs it.

It takes float16 and bfloat16, one head width for query, key and value, a multiple of 8 up to 256, and GPUs from Ampere
on. Narrower values (DeepSeek's latent attention) and other widths are filled up with zeros: zeros add nothing to a
score, and give zeros, which are cut off.

FlashAttention 2 is torch's own (arXiv 2307.08691). FlashAttention 3 and 4 take its place where they are installed.
"""

import importlib.util
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from sft.errors import UserError

_DTYPES = {torch.float16, torch.bfloat16}
_WIDTH_STEP, _MAX_WIDTH = 8, 256
_AMPERE, _HOPPER, _BLACKWELL = 8, 9, 10

FlashVersion = Literal["auto", 2, 3, 4]


class _Installed(NamedTuple):
    """Where torch finds a later version, and on which GPUs (major capability) torch lets it run."""

    module: str
    majors: tuple[int, ...]


_LATER: Final = {
    3: _Installed("flash_attn_interface", (_HOPPER,)),
    4: _Installed("flash_attn.cute.interface", (_HOPPER, _BLACKWELL)),
}


def suits_flash(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether FlashAttention takes a row: (1, H, T, D) each, with any head widths."""
    return (
        query.is_cuda
        and query.dtype in _DTYPES
        and query.dtype == key.dtype == value.dtype
        and max(query.shape[-1], key.shape[-1], value.shape[-1]) <= _MAX_WIDTH
        and _has_flash(query.device)
    )


@cache
def _has_flash(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device)[0] >= _AMPERE


def attend_flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    cu_seqlens: Tensor,
    max_seqlen: int,
) -> Tensor:
    """The attention of one packed row: (1, H, T, D), (1, G, T, D), (1, G, T, D') → (1, T, H, D')."""
    # Imported here because builds of torch for the CPU may lack it.
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    width, value_width = query.shape[-1], value.shape[-1]
    filled = -(-max(width, value_width) // _WIDTH_STEP) * _WIDTH_STEP
    q, k, v = (_filled_up(x, filled).squeeze(0).transpose(0, 1) for x in (query, key, value))
    look_back = -1 if window is None else window - 1
    # The kernel takes grouped heads as they are. Before torch 2.12 the function around it does so without a word.
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in (varlen_attn.__kwdefaults__ or {}) else {}
    out_THD = varlen_attn(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=width**-0.5 if scaling is None else scaling,
        window_size=(look_back, 0),
        **grouped,
    )
    assert isinstance(out_THD, Tensor)
    return out_THD.narrow(-1, 0, value_width).unsqueeze(0)


def _filled_up(tensor: Tensor, width: int) -> Tensor:
    missing = width - tensor.shape[-1]
    return torch.cat([tensor, tensor.new_zeros(*tensor.shape[:-1], missing)], dim=-1) if missing else tensor


def use_flash(asked: FlashVersion, device: torch.device) -> None:
    """Put the version that is asked for in the place of torch's own, in this process.

    `auto` is 3 on Hopper where it is installed, else 2. 4 is still a beta of its authors, so it has to be asked for.

    Raises:
        UserError: the version is not installed, or does not run on this GPU or with this torch.
    """
    if device.type != "cuda":
        if asked in _LATER:
            raise UserError(f"train.flash_attention: {asked} needs a GPU. Set it to auto.")
        return
    version = 3 if asked == "auto" else asked
    if version == 2:
        return
    reason = _why_not(version, torch.cuda.get_device_capability(device)[0])
    if reason is None:
        from torch.nn.attention import activate_flash_attention_impl  # noqa: PLC0415  (not in builds for the CPU)

        activate_flash_attention_impl(f"FA{version}")
    elif asked != "auto":
        raise UserError(f"train.flash_attention: {version} cannot be used: {reason}. Set it to auto.")


def _why_not(version: int, major: int) -> str | None:
    """Why a later version cannot be used on GPUs of this major capability; None where it can."""
    later = _LATER[version]
    if major not in later.majors:
        of_gpus = " or ".join(f"{m}.0" for m in later.majors)
        return f"it runs on GPUs of the compute capability {of_gpus}, and this one has {major}"
    if not _is_installed(later.module):
        return f"the module {later.module} is not installed where the model is trained"
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
