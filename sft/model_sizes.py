"""Checks the sizes in a model's config.json against those of any conceivable model, before anything uses them."""

import re
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
"""Keys of a config.json and of its sections, with the least and the largest value of any conceivable model."""

# For all other keys, the name gives the limit for numbers that a loop runs over. The first match counts.
_AT_MOST = (
    (re.compile(r".*(layers?|blocks?|depths?|stages?|types?|patterns?|repeats?|_configs)"), 10_000),
    (re.compile(r"(.*_)?num_labels"), 1_000_000),
    (re.compile(r".*(vocab|token|position|embe?d|context|length|theta|base|seed|pixel|param|max_).*"), None),
    (re.compile(r"(.*_)?(ids?|index|len|ctx)"), None),
    (re.compile(r"(.*_)?num_.*|n_.*"), 100_000),
    (re.compile(r".*"), 10_000_000),
)
"""Names of keys, and the largest whole number for them, also in lists. None: nothing loops over it."""

_LISTED, _LONGEST_LIST = _AT_MOST[0]
"""Keys with an entry, or a letter, for each layer."""

_SECTION = re.compile(r"(text|vision|audio|thinker|language|llm)_config")


class ImpossibleSizesError(UserError):
    """A config.json with sizes that no model has."""


def check_sizes(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a config.json with a size that no model has: code that builds such a model would never end.

    Args:
        config: its content.
        file: its path, for the message.

    Raises:
        UserError: names all of these sizes.
    """
    problems = [f"  {key}: {_shown(value)}; needed: {rule}" for key, value, rule in _wrong_sizes(config)]
    if problems:
        raise ImpossibleSizesError(
            f"model.path: {file} is not the config of any possible model:\n" + "\n".join(problems)
        )


def _wrong_sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """The sizes that no model has, each with what it would have to be. A list may hold one size a layer."""
    waiting: list[tuple[str, str, Any, bool]] = [("", "", config, False)]
    while waiting:  # no recursion: sections may be nested as deeply as Python reads JSON
        place, key, value, is_listed = waiting.pop()
        if isinstance(value, Mapping):
            inner = {f"{place}.{name}" if place else str(name): (str(name), entry) for name, entry in value.items()}
            waiting += [(where, name, entry, False) for where, (name, entry) in reversed(inner.items())]
        elif isinstance(value, list):
            # The index alone would only be a number, so messages give the name of the list.
            waiting += [(place, key, entry, True) for entry in reversed(value)]
        if rule := _broken_rule(key, value, is_listed):
            yield place, value, rule


def _broken_rule(key: str, value: Any, is_listed: bool) -> str | None:
    """What the value would have to be; None if it is allowed."""
    if _SECTION.fullmatch(key) and not isinstance(value, Mapping | None) and not is_listed:
        return "a section, which is an object"
    if key == "model_type" and not isinstance(value, str):
        return "the name of a family"
    if isinstance(value, list | str) and len(value) > _LONGEST_LIST and _LISTED.fullmatch(key):
        return f"at most {_LONGEST_LIST:,} entries, one a layer"
    is_whole = type(value) is int
    if key in _SIZES and value is not None and not isinstance(value, list | Mapping):
        least, most = _SIZES[key]
        fits = not isinstance(value, int | float) or value <= most if is_listed else is_whole and least <= value <= most
        return None if fits else f"a whole number from {least:,} to {most:,}"
    limit = next(most for name, most in _AT_MOST if name.fullmatch(key)) if is_whole else None
    return None if limit is None or value <= limit else f"at most {limit:,}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
