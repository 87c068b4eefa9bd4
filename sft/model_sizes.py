"""Which sizes a model's config.json may name: those of any model that is thinkable, before anything is made of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sft.errors import UserError

_WIDTH, _HEADS, _MANY = (1, 10_000_000), (1, 100_000), (1, 1_000_000_000)
_SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "intermediate_size", "n_inner", "moe_intermediate_size"), _WIDTH),
    "shared_expert_intermediate_size": (0, 10_000_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads"), _HEADS),
    "head_dim": (0, 100_000),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), (1, 10_000)),
    **dict.fromkeys(("num_layers", "num_blocks", "depth", "encoder_layers", "decoder_layers"), (0, 10_000)),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions"), _MANY),
    **dict.fromkeys(("num_experts", "num_local_experts", "num_experts_per_tok"), (0, 100_000)),
    "decoder_sparse_step": (0, 10_000),
}
"""Keys of a config.json and of its sections, with the least and the largest value of any model that is thinkable."""

_MAX_DEPTH = 3
"""Of sections in sections, such as `thinker_config.text_config`."""


class ImpossibleSizesError(UserError):
    """A config.json with sizes of no model."""


def check_sizes(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a config.json with a size that no model has: none of those who build on it would end.

    Args:
        config: its content.
        file: where it lies, for the message.

    Raises:
        UserError: with all of these sizes.
    """
    problems = [f"  {key}: {_shown(value)}; needed: {rule}" for key, value, rule in _wrong_sizes(config)]
    if problems:
        raise ImpossibleSizesError(
            f"model.path: {file} is not the config of a model that there could be:\n" + "\n".join(problems)
        )


def _wrong_sizes(config: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any, str]]:
    """The sizes that no model has, each with what it would have to be. Lists, one size a layer, are left to others."""
    for name, inner in config.items():
        if isinstance(inner, dict) and section.count(".") < _MAX_DEPTH:
            yield from _wrong_sizes(inner, f"{section}{name}.")
    for name, (least, most) in _SIZES.items():
        key, value = section + name, config.get(name)
        if value is None or isinstance(value, list | dict):
            continue
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not least <= value <= most:
            yield key, value, f"a whole number from {least:,} to {most:,}"
    family = config.get("model_type", "")
    if not isinstance(family, str):
        yield f"{section}model_type", family, "the name of a family"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
