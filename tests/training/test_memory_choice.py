"""What the run leaves open is settled the same on all ranks, by the smallest of their GPUs, and said once."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.run_events import EventLog, read_events
from sft.run_folder import RunFolder
from sft.sizing.choice import Gpus, settle
from sft.sizing.fit import GIB
from sft.sizing.model_shape import model_shape
from sft.training.memory_choice import settle_memory
from tests.checkpoint.ranks import Rank, run_ranks
from tests.sizing.models import LLAMA_8B

LARGE, SMALL = 160 * GIB, 120 * GIB


def config_of(folder: Path, content: dict[str, Any] | None, **train: Any) -> SftConfig:
    (folder / "model").mkdir()
    if content is not None:
        (folder / "model" / "config.json").write_text(json.dumps(content))
    return SftConfig.model_validate(
        {
            "run": {"name": "run", "dir": str(folder / "run")},
            "model": {"path": str(folder / "model")},
            "data": {"sources": [{"name": "none", "path": "none/none"}]},
            "stages": [{"name": "only", "budget": {"steps": 5}, "optimizer": {"lr": 1e-4}}],
            "train": {"pack_len_tokens": 4096, "packs_per_step": 64, **train},
        }
    )


def settled(config: SftConfig, memory: Sequence[int]) -> tuple[SftConfig, list[Any]]:
    """The config on all ranks, and what was said. `memory` is that of each rank's GPU; empty on one CPU."""
    folder = RunFolder(config.run.dir).attempt(1)
    folder.path.mkdir(parents=True)

    def main(ranks: Rank) -> SftConfig:
        rank = ranks.world.rank
        if memory:
            ranks.world = replace(ranks.world, device=f"cuda:{rank}", local_size=len(memory))
        return settle_memory(config, 0, ranks, EventLog(folder, rank), lambda world: memory[world.rank])

    first, *others = run_ranks(max(1, len(memory)), main)
    assert all(other == first for other in others)
    return first, list(read_events(folder))


@pytest.mark.parametrize("memory", [(LARGE, SMALL), (SMALL, LARGE)])
def test_the_smallest_gpu_of_all_ranks_counts(tmp_path: Path, memory: tuple[int, ...]) -> None:
    config = config_of(tmp_path, LLAMA_8B)
    result, said = settled(config, memory)
    shape = model_shape(LLAMA_8B)
    one_node = Gpus(2, SMALL, between_nodes=False), Gpus(2, LARGE, between_nodes=False)
    assert [result == settle(config, shape, 0, gpus) for gpus in one_node] == [True, False]
    (event,) = said
    assert event.facts["packs_per_micro_batch"] == result.train.packs_per_micro_batch
    assert event.facts["activation_checkpointing"] == result.train.activation_checkpointing
    assert event.facts["gpu_bytes"] == SMALL
    assert "of 32 layers compute activations again; by estimate" in event.text


def test_on_a_cpu_it_is_as_it_was_and_nothing_is_said(tmp_path: Path) -> None:
    result, said = settled(config_of(tmp_path, LLAMA_8B), ())
    assert (result.train.packs_per_micro_batch, result.train.activation_checkpointing) == (1, "all")
    assert said == []


def test_what_the_config_gives_is_taken_and_not_said(tmp_path: Path) -> None:
    config = config_of(tmp_path, LLAMA_8B, packs_per_micro_batch=3, activation_checkpointing=2)
    assert settled(config, (SMALL,)) == (config, [])


@pytest.mark.parametrize(
    ("content", "why"), [(None, "config.json"), ({**LLAMA_8B, "model_type": "strange"}, "strange")]
)
def test_a_model_without_a_formula_is_trained_as_on_a_cpu(
    tmp_path: Path, content: dict[str, Any] | None, why: str
) -> None:
    result, said = settled(config_of(tmp_path, content), (SMALL,))
    assert (result.train.packs_per_micro_batch, result.train.activation_checkpointing) == (1, "all")
    assert why in said[0].text
