"""Which decoder layers are computed again in the backward pass, and how many packs a micro-batch holds: the choices.

Both are settings of speed and memory, and both may be left to the run (`auto`, see `sft.sizing.choice`). A layer that
is computed again keeps only its input until then.
"""

import math
from typing import Annotated, Any, Final, Literal, cast

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

AUTO: Final = "auto"

Recomputed = Literal["auto", "none", "all"] | int | float
"""`all` or `none`; every n-th layer; or the share of layers."""


def read_recomputed(value: Any) -> Recomputed:
    """The choice, from what stands in a config. `true` is all layers, `false` none.

    Raises:
        PydanticCustomError: it is none of these.
    """
    if isinstance(value, bool):
        return "all" if value else "none"
    is_number = isinstance(value, int) and value >= 1 or isinstance(value, float) and 0 < value <= 1
    if is_number or isinstance(value, str) and value in ("auto", "none", "all"):
        return cast(Recomputed, value)
    text = "must be auto, all, none, a whole number n for every n-th layer, or a share of layers such as 0.5"
    raise PydanticCustomError("layers", text)


RecomputedField = Annotated[
    Recomputed,
    PlainValidator(
        read_recomputed,
        Literal["auto", "all", "none"] | bool | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)],
    ),
]


def read_packs(value: Any) -> Literal["auto"] | int:
    """The number of packs, or `auto`, from what stands in a config.

    Raises:
        PydanticCustomError: it is neither.
    """
    if value == AUTO:
        return AUTO
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise PydanticCustomError("packs", "must be auto, or a whole number of at least 1, such as 8")


PacksField = Annotated[Literal["auto"] | int, PlainValidator(read_packs, Literal["auto"] | Annotated[int, Field(ge=1)])]


def recomputed_layers(choice: Recomputed, num_layers: int) -> range:
    """The indices of the layers that are computed again.

    A share is the first layers: their turn in the backward pass comes when the others have freed what they keep. The
    last layer has its turn first, so to compute it again would add to the most that is kept.
    """
    match choice:
        case "none":
            return range(0)
        case "auto" | "all":
            return range(num_layers)
        case int():
            return range(0, num_layers, choice)
        case _:
            # A share that is meant to be a whole number of layers may be a little more.
            return range(math.ceil(choice * num_layers - 1e-6))


def recomputes_all(choice: Recomputed) -> bool:
    """Whether no layer keeps its activations, however many there are."""
    return choice in ("auto", "all", 1)


def share_of(num_recomputed: int, num_layers: int) -> Recomputed:
    """The choice that is this many layers."""
    if num_recomputed in (0, num_layers):
        return "none" if num_recomputed == 0 else "all"
    return num_recomputed / num_layers


def packs_or_one(packs: Literal["auto"] | int) -> int:
    """The packs of a micro-batch; one where that is left to a run that knows no better, as on CPUs."""
    return 1 if packs == AUTO else packs
