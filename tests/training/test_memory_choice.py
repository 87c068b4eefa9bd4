"""What the run leaves open is settled the same on all ranks, by the smallest of their GPUs, and said once."""

import json
from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.ranks.ranks import OneRank
from sft.run_events import EventLog, read_events
from sft.run_folder import RunFolder
from sft.sizing.choice import Gpus, settle
from sft.sizing.fit import GIB
from sft.sizing.model_shape import model_shape
from sft.training.memory_choice import settle_memory
from sft.world import World
from tests.sizing.models import LLAMA_8B

LARGE, SMALL = 80 * GIB, 48 * GIB


class OneOfTwo(OneRank):
    """The first of two ranks, of which the other has another GPU."""

    def gather(self, text: str) -> list[str]:
        """The text of this rank, and what the other would say."""
        return [text, str(SMALL) if text.isdigit() else ""]


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


def settled(config: SftConfig, world: World) -> tuple[SftConfig, list[Any]]:
    """The config, and what was said."""
    folder = RunFolder(config.run.dir).attempt(1)
    folder.path.mkdir(parents=True)
    ranks = OneOfTwo(world) if world.size > 1 else OneRank(world)
    result = settle_memory(config, 0, ranks, EventLog(folder, 0), lambda _: LARGE)
    return result, list(read_events(folder))


def test_the_smallest_gpu_of_all_ranks_counts(tmp_path: Path) -> None:
    config = config_of(tmp_path, LLAMA_8B)
    result, said = settled(config, World(0, 2, device="cuda:0", local_size=2))
    assert result == settle(config, model_shape(LLAMA_8B), 0, Gpus(2, SMALL))
    assert result != settle(config, model_shape(LLAMA_8B), 0, Gpus(2, LARGE))
    (event,) = said
    assert event.facts["packs_per_micro_batch"] == result.train.packs_per_micro_batch
    assert event.facts["activation_checkpointing"] == result.train.activation_checkpointing
    assert event.facts["gpu_bytes"] == SMALL
    assert "of 32 layers compute activations again; by estimate" in event.text


def test_on_a_cpu_it_is_as_it_was_and_nothing_is_said(tmp_path: Path) -> None:
    result, said = settled(config_of(tmp_path, LLAMA_8B), World())
    assert (result.train.packs_per_micro_batch, result.train.activation_checkpointing) == (1, "all")
    assert said == []


def test_what_the_config_gives_is_taken_and_not_said(tmp_path: Path) -> None:
    config = config_of(tmp_path, LLAMA_8B, packs_per_micro_batch=3, activation_checkpointing=2)
    assert settled(config, World(device="cuda:0")) == (config, [])


@pytest.mark.parametrize(
    ("content", "why"), [(None, "config.json"), ({**LLAMA_8B, "model_type": "strange"}, "strange")]
)
def test_a_model_without_a_formula_is_trained_as_on_a_cpu(
    tmp_path: Path, content: dict[str, Any] | None, why: str
) -> None:
    result, said = settled(config_of(tmp_path, content), World(device="cuda:0"))
    assert (result.train.packs_per_micro_batch, result.train.activation_checkpointing) == (1, "all")
    assert why in said[0].text
