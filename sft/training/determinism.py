"""Makes a GPU give the same numbers to the bit, run after run (`train.deterministic`), or says what cannot.

torch chooses deterministic implementations: of FlashAttention's backward pass, of `index_add_`, `index_select`,
`gather`, `scatter` and of the embedding's gradient. It raises an error where there is none: `histc`, `bincount` with
weights, `median`, `cumsum` of floats (torch.use_deterministic_algorithms). Kernels of other packages are not torch's
to choose.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedConfig

from sft.errors import UserError

_NONE_THERE = "does not have a deterministic implementation"


def choose_deterministic() -> None:
    """Let torch take deterministic implementations in this process from now on."""
    torch.use_deterministic_algorithms(True)
    # It would fill all new memory, which helps only programs that read memory before they write it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no stub


def choose_experts(model: Any) -> None:
    """Let the experts of a model be computed one after another: transformers' faster ways count tokens by `histc`."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig) and hasattr(config, "_experts_implementation_internal"):
            config._experts_implementation_internal = "eager"


@contextmanager
def refused_in_words() -> Iterator[None]:
    """Turn torch's error about an operation into one for the user.

    Raises:
        UserError: an operation of the model has no deterministic implementation.
    """
    try:
        yield
    except RuntimeError as error:
        if _NONE_THERE not in str(error):
            raise
        raise UserError(
            f"train.deterministic: the model needs an operation that is not deterministic on this GPU "
            f"({str(error).partition(_NONE_THERE)[0].strip()}). Set train.deterministic=false, or choose another model."
        ) from error
