"""How many positions a model has: the length of a table, or the range that it was trained on."""

from typing import Any

from torch import nn

from sft.errors import UserError
from sft.model.text_path import text_decoder

_MAX_OFFSET = 8
"""Rows of a position table that belong to no position (OPT has two)."""


def num_positions(config: Any) -> int | None:
    """The positions that a model was made for, by its config of transformers; None where none are named."""
    trained = getattr(config.get_text_config(), "max_position_embeddings", None)
    return trained if isinstance(trained, int) and trained > 0 else None


def check_positions(path: str, skeleton: Any, max_len_tokens: int) -> list[str]:
    """Compare the longest example with the model's positions. Positions restart at each example of a pack.

    Args:
        path: the model, as the user names it.
        skeleton: the model; its weights are not used.
        max_len_tokens: the longest example.

    Returns:
        A note if examples may be longer than what the model was trained on.

    Raises:
        UserError: the model has a table of positions, and it is shorter.
    """
    trained = num_positions(skeleton.config)
    if trained is None or max_len_tokens <= trained:
        return []
    if table := _position_table(skeleton, trained):
        raise UserError(
            f"data.max_len_tokens: {max_len_tokens:,} is more than the {trained:,} positions of {path}: its table of "
            f"positions ({table}) has no row for a later token. Set data.max_len_tokens={trained}, or use a model "
            "with more positions."
        )
    return [
        f"model: {path} was made for {trained:,} positions (max_position_embeddings), and data.max_len_tokens is "
        f"{max_len_tokens:,}. It must learn the later positions from this data alone."
    ]


def _position_table(skeleton: Any, num_positions: int) -> str | None:
    """The name of the decoder's table with a row for each position; rotary models have none."""
    decoder, tokens = text_decoder(skeleton), skeleton.get_input_embeddings()
    others = [(n, m) for n, m in decoder.named_modules() if isinstance(m, nn.Embedding) and m is not tokens]
    rows = {str(name): module.num_embeddings for name, module in others}
    rows |= {name: len(values) for name, values in decoder.named_buffers() if values.ndim == 2}
    return next((name for name, size in rows.items() if 0 <= size - num_positions <= _MAX_OFFSET), None)
