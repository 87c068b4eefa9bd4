"""Of a model that also sees, the text's part is sized as what is trained, and the rest as what is held."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sft.config import ModelConfig
from sft.errors import UserError
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


def test_a_model_of_states_is_not_estimated_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba2", "hidden_size": 64, "vocab_size": 96}')
    save_file({"backbone.embeddings.weight": torch.zeros(96, 64)}, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match="mamba2 has no formula: memory and time are not estimated, because config.json has"
    ):
        read_shape(str(tmp_path))
