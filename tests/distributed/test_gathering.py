"""Layers that are gathered whole have fewer hooks and the same numbers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sft.engine.leaf_layers import whole_layers
from tests.distributed.launch import run_ranks
from tests.model.tiny_folders import write_tiny

# Else parameters as small as ours would stay gathered.
GIVE_BACK = {"stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}

FAMILIES = {"mixtral": "packed", "gemma3n_text": "packed", "zamba2": "one_example"}
"""Experts that get no token; inputs of layers beside the hidden states; layers that share parts."""


def change(gather: str, checkpointing: bool, **deepspeed: Any) -> dict[str, Any]:
    extra = {"extra": {"zero_optimization": GIVE_BACK}} | deepspeed
    return {"deepspeed": {"gather": gather, **extra}, "train": {"activation_checkpointing": checkpointing}}


def of_family(workload: dict[str, Any], folder: Path, family: str) -> dict[str, Any]:
    content = copy.deepcopy(workload["config"])
    content["model"]["path"] = str(write_tiny(folder / "tiny", family, Path(content["model"]["path"])))
    content["train"]["packing"] = FAMILIES[family]
    return {**workload, "config": content}


@pytest.mark.long
def test_layers_gathered_whole_train_the_same(workload: dict[str, Any], trajectory: list[list[float]]) -> None:
    """Four ranks for three micro-batches: one of them has an empty one."""
    changes = [change("layer", True), change("layer", False, hpz_partition_size=2)]
    for steps in run_ranks(4, "with_changes", {**workload, "changes": changes}):
        assert steps == [pytest.approx(step, rel=1e-5) for step in trajectory[:2]]


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_other_families_train_the_same_gathered_whole(
    family: str, workload: dict[str, Any], tmp_path: Path
) -> None:
    changes = [
        change("module", False),
        change("layer", True, offload_optimizer="cpu", offload_parameters="cpu"),
    ]
    expected, steps = run_ranks(2, "with_changes", {**of_family(workload, tmp_path, family), "changes": changes})
    assert steps[0] == pytest.approx(expected[0], rel=1e-5)
    # Not its norm: some of them magnify the rounding of the first update.
    assert steps[1][0] == pytest.approx(expected[1][0], rel=1e-5)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(2, 2)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inside(hidden))


class Other(Layer):
    pass


class Parts(nn.Module):
    """No forward pass of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Layer(), nn.ModuleList([Layer()])


def test_whole_layers_are_those_that_are_used_in_one_place() -> None:
    shared, tied = Layer(), [Layer(), Layer()]
    tied[1].inside.weight = tied[0].inside.weight
    own, other, parts = Layer(), Other(), Parts()
    decoder = nn.Module()
    decoder.layers = nn.ModuleList([own, other, shared, parts, shared, *tied, nn.ModuleList([Layer()])])
    decoder.norm = nn.Linear(2, 2)
    decoder.projections = nn.ModuleList([nn.Linear(2, 2)])
    found = whole_layers(decoder)
    assert found[:2] == [own, other]
    assert found[2:] == [parts.second[0], decoder.layers[-1][0]]
