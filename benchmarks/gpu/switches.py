"""The settings that are to make it fast, in the order in which a waterfall turns them on. A new one is a line here."""

from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel

from sft.config import SftConfig


class Switch(NamedTuple):
    """A setting and what it is turned to."""

    name: str
    path: str
    """`section.field`."""
    off: Any
    on: Any
    is_kept: bool = True
    """Whether the switches after it have it on, too; one that is not kept is only tried."""


SWITCHES: Final = (
    Switch("decoder layers gathered whole", "deepspeed.gather", "module", "layer"),
    Switch("the plain engine", "train.engine", "zero3", "plain"),
    Switch("packs of a micro-batch by memory", "train.packs_per_micro_batch", 1, "auto"),
    Switch("fused norm, rotary and gate", "model.kernels", "none", "auto"),
    Switch("Liger's norm and gate", "model.kernels", "auto", "liger", is_kept=False),
    Switch("activations kept as far as they fit", "train.activation_checkpointing", "all", "auto"),
    Switch("chunks of the head: 2,048 tokens", "train.logits_chunk_tokens", 1024, 2048),
    Switch("FlashAttention 3 where it is", "train.flash_attention", 2, "auto"),
)


def is_known(path: str) -> bool:
    """Whether the config has this field."""
    section, _, name = path.partition(".")
    found = SftConfig.model_fields.get(section)
    kinds = (found.annotation, *get_args(found.annotation)) if found else ()
    return any(isinstance(k, type) and issubclass(k, BaseModel) and name in k.model_fields for k in kinds)


def known() -> tuple[list[Switch], list[Switch]]:
    """The switches that this version of the config has, and those that it lacks."""
    return [s for s in SWITCHES if is_known(s.path)], [s for s in SWITCHES if not is_known(s.path)]


def all_off() -> dict[str, Any]:
    """Every setting as it was before; the first switch of a field says how."""
    return {s.path: s.off for s in reversed(known()[0])}


def all_on() -> dict[str, Any]:
    return {s.path: s.on for s in known()[0] if s.is_kept}
