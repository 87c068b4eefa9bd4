"""On a GPU a run says which fused kernels its model got, and why it got no more."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING

from sft.config import ModelConfig
from sft.model import fused
from sft.model.kernels import DEFINITIONS, apply_kernels, fuse
from sft.model.tiny_model import tiny_config, tiny_model
from sft.ranks.ranks import OneRank
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.training.kernel_report import tell_kernels
from sft.world import World
from tests.checkpoint.ranks import Rank, run_ranks

CPU, GPU = torch.device("cpu"), World(device="cuda:0")


def llama() -> Any:
    return tiny_model(tiny_config(CONFIG_MAPPING["llama"]()), None)


def no_compiler(*_: Any) -> Tensor:
    raise RuntimeError("Failed to find C compiler.\n  Please specify CC")


def said(model: Any, folder: Path, world: World = GPU, kernels: Any = "auto") -> list[str]:
    attempt = AttemptFolder(folder)
    tell_kernels(model, ModelConfig(path="m", kernels=kernels), OneRank(world), EventLog(attempt, 0))
    return [event.text for event in read_events(attempt) if event.kind == "kernels"]


def test_it_says_how_many_modules_got_which_kernel_and_in_one_line_why_others_got_none(tmp_path: Path) -> None:
    model = llama()
    fuse(model, DEFINITIONS, CPU)
    assert said(model, tmp_path) == ["fused kernels: 2 × gated MLP, 5 × norm, 2 × rotary"]
    fuse(model := llama(), DEFINITIONS._replace(norm=no_compiler, gated=lambda gate, up, _: 0 * gate * up), CPU)
    text = said(model, tmp_path)[-1]
    assert text == (
        "fused kernels: 2 × rotary; others could not be proven right on this GPU: "
        "gated MLP: its results differ; norm: RuntimeError: Failed to find C compiler. Please specify CC"
    )


def test_it_says_that_none_could_be_proven_and_why_that_matters(tmp_path: Path) -> None:
    nothing = DEFINITIONS._replace(norm=no_compiler, rotary=no_compiler, gated=no_compiler)
    fuse(model := llama(), nothing, CPU)
    [text] = said(model, tmp_path)
    assert text.startswith("no fused kernel could be proven right: rotary: RuntimeError: Failed to find C compiler.")
    assert "which is right, but slower and takes more memory" in text
    with mock.patch.object(fused, "HAS_TRITON", False):
        apply_kernels(model := llama(), ModelConfig(path="m"), torch.device("cuda"))
    assert "proven right: Triton is not installed. Norms" in said(model, tmp_path)[-1]


def test_without_a_gpu_or_where_none_are_wanted_nothing_is_said(tmp_path: Path) -> None:
    assert said(llama(), tmp_path, World()) == said(llama(), tmp_path, kernels="none") == []


def test_a_rank_whose_gpu_found_something_else_says_so(tmp_path: Path) -> None:
    attempt, models = AttemptFolder(tmp_path), [llama() for _ in range(3)]
    for model, kernels in zip(models, [DEFINITIONS, DEFINITIONS, DEFINITIONS._replace(norm=no_compiler)], strict=True):
        fuse(model, kernels, CPU)

    def main(ranks: Rank) -> None:
        rank = ranks.world.rank
        ranks.world = World(rank, 3, device=f"cuda:{rank}")
        tell_kernels(models[rank], ModelConfig(path="m"), ranks, EventLog(attempt, rank))

    run_ranks(3, main)
    events = sorted(read_events(attempt), key=lambda event: event.rank)
    assert [event.rank for event in events] == [0, 2]
    assert "compiler" in events[1].text
