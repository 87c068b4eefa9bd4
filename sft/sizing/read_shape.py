"""The shape of the model that a config names: by the formula of its family, or else from its own files."""

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
"""Names of tensors that no text goes through. This is an estimate: training finds these tensors by their gradients."""


def read_shape(path: str) -> tuple[ModelShape, tuple[str, ...]]:
    """The shape of the model at `path`, and notes on how it was found.

    Raises:
        UserError: its config.json is not on this machine, or neither formula nor files say how large the model is.
    """
    config, folder = read_model_config(path)
    try:
        return _shape(path, config, folder)
    except (TypeError, ArithmeticError, LookupError) as error:
        # One of many keys has a value that no model has: text, a list, an object.
        raise UserError(f"model.path: {folder / 'config.json'} has a size that cannot be read: {error}") from None


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
            f"here to count. Download all of it, or name a folder with its safetensors files (model.path=FOLDER). "
            f"There are formulas for {', '.join(FAMILIES)}."
        )
    note = (
        f"model: {family} has no formula; parameters are counted in its files, activations are estimated like Llama's"
    )
    try:
        return shape_from_tensors(config, sizes), (note,)
    except UserError as error:
        # For example, a state space model has no attention.
        raise UserError(f"model: {family} has no formula: memory and time are not estimated, because {error}") from None


def _shape_of_text(path: str, text: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[ModelShape, tuple[str, ...]]:
    """The shape of the trained part of a model that also sees or hears; the rest is held in memory."""
    if not sizes:
        raise UserError(
            f"model.path: {path} is more than a language model, and its weights are not here to count. Download "
            "all of it, or name a folder with its safetensors files (model.path=FOLDER)."
        )
    # The config and its section may disagree about tying, so look whether the files have a head.
    content = {**text, "tie_word_embeddings": not any("lm_head" in name for name in sizes)}
    family = content.get("model_type", "")
    if family in FAMILIES:
        shape = model_shape(content)
        frozen = max(0, sum(sizes.values()) - shape.num_parameters)
        return replace(shape, num_frozen=frozen), (_frozen_note(frozen),)
    trained = {name: size for name, size in sizes.items() if not _OF_A_TOWER.search(name)}
    frozen = sum(sizes.values()) - sum(trained.values())
    counted = f"model: {family} has no formula; parameters are counted in its files, activations estimated like Llama's"
    return replace(shape_from_tensors(content, trained), num_frozen=frozen), (counted, _frozen_note(frozen))


def _frozen_note(num_frozen: int) -> str:
    return f"model: {num_frozen:,} parameters that no text goes through are held but not trained"
