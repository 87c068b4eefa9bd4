"""What is known about a model before it is trained: its size, its longest text, whether it has a tokenizer.

Read from its config.json and the headers of its files, without torch.
"""

from typing import NamedTuple

from sft.errors import UserError
from sft.sizing.model_config import read_model_config
from sft.sizing.model_shape import ModelShape
from sft.sizing.read_shape import read_shape

_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")


class ModelFacts(NamedTuple):
    """What is known; None where it is unknown."""

    path: str
    family: str | None
    num_positions: int | None
    """The length in tokens of the longest text that it was made for."""
    shape: ModelShape | None
    notes: tuple[str, ...]
    """What is unknown, and why."""


def survey_model(path: str) -> ModelFacts:
    """The facts of the model at `path`, a folder or an id of the Hub; what is not on this machine is unknown."""
    try:
        config, _ = read_model_config(path)
    except UserError as error:
        return ModelFacts(path, None, None, None, (str(error),))
    nested = config.get("text_config")
    for content in (config, nested if isinstance(nested, dict) else {}):
        positions = next((content[name] for name in _POSITIONS if isinstance(content.get(name), int)), None)
        if positions:
            break
    family = config.get("model_type")
    try:
        shape, notes = read_shape(path)
    except UserError as error:
        return ModelFacts(path, family, positions, None, (str(error),))
    return ModelFacts(path, family, positions, shape, notes)
