"""The message for a key of another system: which of our keys does it, with the converted value if possible."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sft.foreign.keys import KEYS, SYSTEMS, System

_ENOUGH = 3
"""A file with this many keys of another system counts as written for it."""

SOURCE_KEYS: Mapping[str, str] = {
    "data_files": "path",
    "file_name": "path",
    "hf_hub_url": "path",
    "type": "format",
    "formatting": "format",
    "ds_type": "path (its ending says what kind of file it is)",
    "field_messages": "columns: {messages: …}",
    "field_human": "columns: {prompt: …}",
    "field_model": "columns: {completion: …}",
    "dataset_config": "subset",
    "num_samples": "max_records",
    "max_samples": "max_records",
    "fraction": "stages.0.mixture.weights, by task",
}
"""Keys of one data set: theirs → the key of a source."""


_LENGTH = "data.max_len_tokens, train.pack_len_tokens"
COMMON_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("max_seq_len", "seq_len", "seq_length", "max_len", "context_length", "block_size"), _LENGTH),
    **dict.fromkeys(
        ("global_batch_size", "train_batch_size", "grad_accum", "accumulate_grad_batches"), "train.packs_per_step"
    ),
    **dict.fromkeys(("num_epoch", "n_epochs", "max_epochs"), "stages.0.budget.epochs"),
    **dict.fromkeys(("dataset_path", "data_path", "train_file", "train_data"), "data.sources.0.path"),
    **dict.fromkeys(("validation_file", "validation_split", "eval_file", "test_size"), "data.holdout"),
    **dict.fromkeys(("model_path", "model_id", "model_name", "pretrained_model_name_or_path"), "model.path"),
    **dict.fromkeys(("num_gpus", "gpus", "devices", "nproc_per_node"), "cluster.workers"),
    **dict.fromkeys(("precision", "mixed_precision"), "model.dtype"),
}
"""What people call it wherever they come from: their key → paths of our fields."""

COMMON_VALUES: Mapping[str, str] = {
    "alpaca": "instruction",
    **dict.fromkeys(("chatml", "openai", "chat_template"), "messages"),
    "bf16": "bfloat16",
    "fp32": "float32",
}
"""The same for values: theirs → ours."""


class Answer(NamedTuple):
    """The message for one key."""

    rule: str
    way_out: str
    ours: tuple[str, ...]
    """Paths of our fields that do it."""


def answer(path: list[Any], value: Any, beside: Mapping[str, Any]) -> Answer | None:
    """The message for a key that is unknown here; None if no other system is known to have it.

    Args:
        path: the keys and indices that lead to it.
        value: its value.
        beside: the mapping that contains it.
    """
    name = str(path[-1])
    if path[:2] == ["data", "sources"] and name in SOURCE_KEYS:
        ours = SOURCE_KEYS[name]
        return Answer("is what other systems call it", f"here it is `{ours}`", ())
    key = KEYS.get(name)
    if key is None and name in COMMON_NAMES:
        fields = tuple(_of_stage(place, path) for place in COMMON_NAMES[name].split(", "))
        return Answer("is not a known key", f"here it is {_joined([f'`{field}`' for field in fields])}", fields)
    if key is None:
        return None
    rule = (
        f"is a key of {_joined([SYSTEMS[system] for system in SYSTEMS if system in key.systems])}, not of this program"
    )
    found = {_of_stage(place, path): ours for place, ours in (key.convert(value, beside) or {}).items()}
    places = tuple(_of_stage(place, path) for place in key.ours.split(", ") if place)
    if found:
        said = "here it is " + _joined([f"`{place}={_as_yaml(ours)}`" for place, ours in found.items()])
    elif places:
        said = "here it is " + _joined([f"`{place}`" for place in places])
    else:
        said = "it has no equal here" if key.is_needed else "take it away"
    return Answer(rule, f"{said}: {key.note}" if key.note else said, tuple(dict.fromkeys((*found, *places))))


def identify(content: Mapping[str, Any]) -> list[System]:
    """The systems that a config may be written for, by its keys: several if they share these, none if few are known."""
    known = [KEYS[name].systems for name in content if name in KEYS]
    score = {system: sum(system in systems for systems in known) for system in SYSTEMS}
    best = max(score.values())
    # A key that only one system has counts more than shared ones.
    own = {system: sum(systems == {system} for systems in known) for system in SYSTEMS if score[system] == best}
    return [system for system in own if own[system] == max(own.values())] if best >= _ENOUGH else []


def _of_stage(place: str, path: list[Any]) -> str:
    """The path in the stage that contains the key, if one does."""
    if path[0] == "stages" and len(path) > 2 and place.startswith("stages.0."):
        return f"stages.{path[1]}.{place.removeprefix('stages.0.')}"
    return place


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
