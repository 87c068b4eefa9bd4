"""The shape of the model that a config names: by the formula of its family, else from its own files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.sizing.families import FAMILIES
from sft.sizing.measured_shape import shape_from_tensors
from sft.sizing.model_config import read_model_config
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.weights_header import read_tensor_sizes


def read_shape(path: str) -> tuple[ModelShape, tuple[str, ...]]:
    """The shape of the model at `path`, and notes on how it was found.

    Raises:
        UserError: its config.json is not on this machine, or neither formula nor files say how large the model is.
    """
    config, folder = read_model_config(path)
    try:
        return _shape(path, config, folder)
    except (TypeError, ArithmeticError, LookupError) as error:
        # Some key of many holds what it holds for no model: text, a list, an object.
        raise UserError(f"model.path: {folder / 'config.json'} says no size that can be read: {error}") from None


def _shape(path: str, config: Mapping[str, Any], folder: Path) -> tuple[ModelShape, tuple[str, ...]]:
    if config.get("model_type") in FAMILIES:
        return model_shape(config), ()
    family = config.get("model_type", "without a model_type")
    sizes = read_tensor_sizes(folder)
    if not sizes:
        raise UserError(
            f"model.path: {path} is of the family {family}, for which there is no formula, and its weights are not "
            f"here to be counted. Download it whole, or name a folder with its safetensors files (model.path=FOLDER). "
            f"There are formulas for {', '.join(FAMILIES)}."
        )
    note = f"model: {family} has no formula; parameters are counted in its files, activations are estimated as Llama's"
    return shape_from_tensors(config, sizes), (note,)
