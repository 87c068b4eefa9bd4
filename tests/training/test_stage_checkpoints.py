"""A stage goes on from its own checkpoints, and from no other run's that lie at the same storage."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sft.checkpoint.local_storage import LocalStorage
from sft.config import SftConfig
from sft.engine.single_process import SingleProcessEngine
from sft.errors import UserError
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder
from sft.training.attempt import begin_attempt
from sft.training.run_record import write_run_record
from sft.training.stage_checkpoints import load_state, open_saver, resume, will_load

ABOUT = {"stage": "broad", "plan": {"store": "a", "seed": 1}}


@pytest.fixture
def parts(tiny_model_dir: Path, tmp_path: Path) -> tuple[SingleProcessEngine, LocalStorage, Any, SftConfig]:
    content = {
        "run": {"name": "one", "dir": str(tmp_path / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {"sources": [{"name": "words", "path": "words.jsonl"}]},
        "stages": [{"name": "broad", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
    }
    config = SftConfig.model_validate(content)
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    engine.load_local_state(lambda key, start, stop: torch.zeros(stop - start), 0)
    write_run_record(config)
    return engine, LocalStorage(tmp_path / "checkpoints"), begin_attempt(RunFolder(config.run.dir), OneRank()), config


def test_the_steps_that_made_no_update_are_counted_on(parts: Any) -> None:
    engine, storage, attempt, config = parts
    assert not will_load(storage, None, attempt)
    assert resume(engine, storage, attempt, ABOUT) == (0, 0)
    saver = open_saver(storage, config.checkpoint, attempt, None)
    saver.save(8, engine.local_state(), {**ABOUT, "num_updates": 5})
    assert saver.finish()
    saver.close()
    assert will_load(storage, None, attempt)
    engine.awaits_state = True
    assert resume(engine, storage, attempt, ABOUT) == (8, 3)
    assert not engine.awaits_state


def test_a_checkpoint_that_vanishes_while_the_model_is_loaded_is_no_fresh_start(parts: Any) -> None:
    engine, storage, attempt, _config = parts
    assert load_state(engine, storage, None, attempt, ABOUT) == (0, 0)
    engine.awaits_state = True  # its weights are not there
    with pytest.raises(UserError, match="were there when its model was loaded, and are gone now") as error:
        load_state(engine, storage, None, attempt, ABOUT)
    assert error.value.is_everywhere


@pytest.mark.parametrize("other", [{"stage": "words"}, {"plan": {"store": "b", "seed": 1}}])
def test_the_checkpoint_of_another_run_is_refused(parts: Any, other: dict[str, Any]) -> None:
    engine, storage, attempt, config = parts
    saver = open_saver(storage, config.checkpoint, attempt, None)
    saver.save(8, engine.local_state(), {**ABOUT, "num_updates": 8})
    assert saver.finish()
    saver.close()
    with pytest.raises(UserError, match=f"the checkpoint of another run: its {next(iter(other))} differ") as error:
        resume(engine, storage, attempt, {**ABOUT, **other})
    assert error.value.is_everywhere


def test_a_checkpoint_that_names_no_optimizer_is_adamws(parts: Any) -> None:
    """As those of the first versions are, which had no other."""
    engine, storage, attempt, config = parts
    saver = open_saver(storage, config.checkpoint, attempt, None)
    saver.save(8, engine.local_state(), {**ABOUT, "num_updates": 8})
    assert saver.finish()
    saver.close()
    assert resume(engine, storage, attempt, {**ABOUT, "optimizer": "adamw"}) == (8, 0)
    with pytest.raises(UserError, match="its optimizer differ"):
        resume(engine, storage, attempt, {**ABOUT, "optimizer": "lion"})
