"""Of a model that also sees, the text's part is sized as what is trained, and the rest as what is held."""

from pathlib import Path

import pytest
import torch

from sft.config import ModelConfig
from sft.model.loading import load_model
from sft.sizing.read_shape import read_shape
from tests.model.tiny_checkpoints import write_checkpoint


@pytest.mark.parametrize("family", ["mistral3", "qwen2_5_vl", "gemma3", "llama"])
def test_trained_and_held_parameters_are_those_of_the_loaded_model(family: str, tmp_path: Path) -> None:
    folder = write_checkpoint(family, tmp_path / family)
    model = load_model(ModelConfig(path=str(folder)), str(folder), torch.float32)
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    shape, notes = read_shape(str(folder))
    assert (shape.num_parameters, shape.num_frozen) == (sizes[True], sizes[False])
    assert bool(shape.num_frozen) == any("no text goes through" in note for note in notes)
