"""A run in two stages on disk: prepared and planned as jobs are, and its ledgers written as ranks write them."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sft.atomic_files import publish_folder, write_json, written_aside
from sft.checkpoint.storage import step_name
from sft.config import SftConfig
from sft.config_file import build_config, read_yaml
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.ledger import LedgerWriter, entry_from_slots, slots_of
from sft.run_folder import RunFolder, StageFolder
from sft.step_plan import StepPlan
from sft.training.workload import prepare_workload

NUM_STEPS = {"broad": 8, "words": 5}
PACKS_PER_STEP = 4


class TrainedRun(NamedTuple):
    """A run folder and what it was made from, of which a test may damage anything."""

    run: RunFolder
    config: SftConfig

    def stage(self, name: str) -> StageFolder:
        return self.run.stage(list(NUM_STEPS).index(name), name)

    @property
    def store(self) -> Path:
        (manifest,) = self.config.data.cache_dir.glob("tokens/*/manifest.json")
        return manifest.parent

    def train(self, name: str, first: int, last: int, attempt: int, world_size: int, skipped: tuple[int, ...] = ()):
        """Feed these steps, and say so in the ledger."""
        plan, store = PackPlan.open(self.stage(name).packs), TokenStore.open(self.store)
        steps = StepPlan(len(plan), PACKS_PER_STEP, world_size, 2)
        writer = LedgerWriter(self.stage(name).ledger, attempt)
        writer.resume(first)
        for step in range(first, last):
            summed: Any = 0
            for rank in range(world_size):
                batches = StepLoader(store, plan, steps, rank).micro_batches(step)
                fed = [pack for batch in batches for pack in batch.fed]
                summed += np.array(slots_of(fed, rank, world_size, steps.micro_batches_per_step * 2), np.int64)
            writer.append(entry_from_slots(step, attempt, world_size, summed.tolist(), step not in skipped))

    def publish(self, path: Path, **manifest: Any) -> None:
        """A folder with two files."""
        with written_aside(path, "test") as aside:
            (aside / "a.safetensors").write_bytes(bytes(range(256)) * 9)
            (aside / "b.json").write_text("{}")
            publish_folder(aside, path, manifest)

    def save(self, name: str, step: int) -> Path:
        path = self.stage(name).checkpoints / step_name(step)
        self.publish(path, kind="checkpoint", step=step)
        return path

    def finish(self, name: str) -> None:
        self.save(name, NUM_STEPS[name])
        self.publish(self.stage(name).model, kind="model")
        write_json(self.stage(name).complete, {"stage": name, "num_steps": NUM_STEPS[name], "attempt": 3})


@pytest.fixture(scope="session")
def planned_dir(tmp_path_factory, small_records, tokenizer_dir) -> Path:
    """A folder with a planned run and its token store."""
    folder = tmp_path_factory.mktemp("planned")
    content = {
        "run": {"name": "small", "dir": str(folder / "run")},
        "model": {"path": str(tokenizer_dir("chatml"))},
        "data": {
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "sources": [
                {"name": "basic", "path": str(small_records.instructions), "format": "instruction"},
                {"name": "lists", "path": str(small_records.prompts), "format": "prompt_completion"},
            ],
            "holdout": {"share": 0.1},
        },
        "stages": [
            {"name": name, "budget": {"steps": num_steps}, "optimizer": {"lr": 1e-4}}
            for name, num_steps in NUM_STEPS.items()
        ],
        "train": {"pack_len_tokens": 256, "packs_per_step": PACKS_PER_STEP},
    }
    prepare_workload(build_config(content))
    return folder


@pytest.fixture
def planned(planned_dir, tmp_path) -> TrainedRun:
    """A planned run of the test's own."""
    folder = tmp_path / "own"
    shutil.copytree(planned_dir, folder)
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(planned_dir), str(folder)))
    return TrainedRun(RunFolder(folder / "run"), build_config(read_yaml(config).content))


@pytest.fixture
def finished(planned) -> TrainedRun:
    """A run that was killed twice in its first stage, went on with more ranks, and skipped one step."""
    planned.train("broad", 0, 5, attempt=1, world_size=2)
    planned.save("broad", 3)
    planned.train("broad", 3, 4, attempt=2, world_size=3, skipped=(3,))
    planned.train("broad", 3, 8, attempt=3, world_size=3, skipped=(6,))
    planned.finish("broad")
    planned.train("words", 0, 5, attempt=3, world_size=3)
    planned.finish("words")
    return planned
