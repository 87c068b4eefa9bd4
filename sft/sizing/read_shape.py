"""The shape of the model that a config names: by the formula of its family, else from its own files."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.sizing.families import FAMILIES
from sft.sizing.measured_shape import shape_from_tensors
from sft.sizing.model_config import read_model_config
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.weights_header import read_tensor_sizes

_OF_A_TOWER = re.compile(r"vision|visual|image|audio|speech|multi_modal|mm_proj|projector")
"""Names of tensors that no text goes through. An estimate: the training finds them by their gradients."""


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
    if isinstance(text := config.get("text_config"), dict):
        return _shape_of_text(path, text, read_tensor_sizes(folder))
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
    try:
        return shape_from_tensors(config, sizes), (note,)
    except UserError as error:
        # Such as of a model of states, without attention.
        raise UserError(f"model: {family} has no formula: memory and time are not estimated, for {error}") from None


def _shape_of_text(path: str, text: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[ModelShape, tuple[str, ...]]:
    """That of the part that is trained of a model which also sees or hears; the rest is held."""
    if not sizes:
        raise UserError(
            f"model.path: {path} is more than a language model, and its weights are not here to be counted. Download "
            "it whole, or name a folder with its safetensors files (model.path=FOLDER)."
        )
    # Both the config and its section may say it, and not the same: the files have a head, or none.
    content = {**text, "tie_word_embeddings": not any("lm_head" in name for name in sizes)}
    family = content.get("model_type", "")
    if family in FAMILIES:
        shape = model_shape(content)
        frozen = max(0, sum(sizes.values()) - shape.num_parameters)
        return replace(shape, num_frozen=frozen), (_frozen_note(frozen),)
    trained = {name: size for name, size in sizes.items() if not _OF_A_TOWER.search(name)}
    frozen = sum(sizes.values()) - sum(trained.values())
    counted = f"model: {family} has no formula; parameters are counted in its files, activations estimated as Llama's"
    return replace(shape_from_tensors(content, trained), num_frozen=frozen), (counted, _frozen_note(frozen))


def _frozen_note(num_frozen: int) -> str:
    return f"model: {num_frozen:,} parameters that no text goes through are held and not trained"
