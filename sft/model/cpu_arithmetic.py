"""Whether this processor computes in bfloat16 without converting each number."""

import torch

SLOW = (
    "no instructions for bfloat16 (AVX-512, AMX; on ARM, BF16): products of matrices take several times as long as in "
    "float32. For a new run on CPUs set model.dtype=float32."
)
"""What is said of a machine where `computes_bfloat16` is False."""


def computes_bfloat16() -> bool:
    """What torch asks before it lets oneDNN multiply in bfloat16; where it is False, a slow loop does."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
