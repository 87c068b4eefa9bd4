"""How many rows of logits the head has in float32 at a time; the memory estimate counts with the same."""

_CPU_BYTES = 1 << 23
"""Little enough for a cache."""
_GPU_BYTES = 1 << 27
"""Enough rows to keep all multiprocessors at work: 262 of a vocabulary of 128,000."""


def block_rows(vocab_size: int, on_gpu: bool) -> int:
    """Rows of a block: at least one."""
    return max(1, (_GPU_BYTES if on_gpu else _CPU_BYTES) // (4 * vocab_size))
