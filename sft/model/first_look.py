"""Checks a model before a machine is held for it: how examples are laid out, notes for people, or why it is refused.

`python -m sft.model.first_look` does so for the files on this machine, in a process of its own, for programs without
torch. It reads `{"model": …, "packing": …, "max_len_tokens": …, "sequence_parallel": …, "is_whole": …}` and
writes `{"layout": …, "reason": …, "notes": […]}`, or `{"error": …, "is_lasting": …}`, as a line of JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from sft.paused_collector import paused_collector

with paused_collector():
    from transformers.utils import logging

    from sft.config import ModelConfig
    from sft.data.collate import Layout
    from sft.errors import UserError
    from sft.model.architecture import MissingPackageError
    from sft.model.layout import choose_layout
    from sft.model.loading import check_model


class FirstLook(NamedTuple):
    """What is known about a model that can be trained."""

    layout: Layout
    reason: str | None
    """Why it is not packed, or what could not be found out."""
    notes: list[str]
    """Notes for people, in words."""


def look_at(
    model: ModelConfig, packing: str, max_len_tokens: int, is_whole: bool = True, sequence_parallel: int = 1
) -> FirstLook:
    """Check a model, and choose its layout.

    Args:
        model: the model.
        packing: `train.packing`.
        max_len_tokens: the longest example.
        is_whole: whether all of the model has to be here; if not, only what is here is checked (see `check_model`).
        sequence_parallel: how many ranks share a row.

    Raises:
        UserError: it cannot be trained.
    """
    notes = check_model(model, max_len_tokens, is_whole)
    return FirstLook(*choose_layout(model, packing, max_len_tokens, sequence_parallel), notes)


def _main() -> None:
    logging.set_verbosity_error()
    asked = json.load(sys.stdin)
    model = ModelConfig(**asked["model"])
    local = Path(model.path).expanduser()
    if local.exists():
        model = model.model_copy(update={"path": str(local)})
    try:
        look = look_at(model, asked["packing"], asked["max_len_tokens"], asked["is_whole"], asked["sequence_parallel"])
        answer: dict[str, Any] = look._asdict()
    except UserError as error:
        # A missing package can be installed: that is not lasting.
        answer = {"error": str(error), "is_lasting": not isinstance(error, MissingPackageError)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()
