"""Exports the model of any kept checkpoint of a run, apart from any training: what `sft export` does.

    RUN_DIR, stage, step ──find_model──▶ RunModel ──export_checkpoint──▶ a Hugging Face folder, published or absent

The folder is the one that the run itself exports at that step, to the bit. Nothing of the run changes: a damaged
checkpoint is refused and stays where it is, and a training in the same folder may go on meanwhile.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from sft.atomic_files import is_published, read_json, read_manifest
from sft.checkpoint.checkpoint_model import CheckpointModel
from sft.checkpoint.export import About, export_aside, export_model
from sft.checkpoint.open_storage import stage_storage
from sft.checkpoint.rank_file import CheckpointReader
from sft.checkpoint.resume import open_newest_good
from sft.config import SftConfig
from sft.config_file import build_config, read_yaml
from sft.data.learned_stops import learned_stop_ids
from sft.data.planning.pack_plan import PackPlan
from sft.data.rendering.chat_template import control_ids
from sft.data.token_store import TokenStore, store_path
from sft.errors import UserError
from sft.evaluation.best_step import read_curve
from sft.evaluation.model_card import model_card
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder, StageFolder
from sft.stage_end import read_stage_end
from sft.training.run_record import about_model

Wanted = int | Literal["last", "best"]
"""Which checkpoint of a stage: that after so many steps, the newest, or that of the best evaluated step."""

_ATTEMPT = 0
_SHOWN = 12


@dataclass(frozen=True)
class RunModel:
    """A model of a run: what a stage had learned after so many steps."""

    run: RunFolder
    config: SftConfig
    stage: StageFolder
    step: int

    @property
    def start(self) -> str:
        """The model that the stage started from: a folder or Hub id.

        Raises:
            UserError: it is gone.
        """
        index = self.stage.index
        if index == 0:
            return self.config.model.path
        before = self.run.stage(index - 1, self.config.stages[index - 1].name).model
        if not is_published(before):
            raise UserError(
                f"{before} is gone, the model that stage {self.stage.name} started from. A checkpoint holds what is "
                "trained; the rest comes from there. Bring it back."
            )
        return str(before)

    @property
    def place(self) -> dict[str, Any]:
        """Where it comes from, as a model folder's manifest says."""
        return {"run": str(self.run.path.resolve()), "stage": self.stage.name, "step": self.step}

    @property
    def about(self) -> dict[str, Any]:
        """All that it says beside the files."""
        return {**self.place, **about_model(self.run)}

    def folder(self, dtype: str) -> Path:
        """Where it is exported if nobody says where."""
        suffix = "" if dtype == self.config.model.dtype else f"-{dtype}"
        return self.run.exports / f"{self.stage.path.name}-step-{self.step:08d}{suffix}"

    def store(self) -> TokenStore:
        """What it was trained on.

        Raises:
            UserError: the token store is gone.
        """
        path = store_path(self.config.data.cache_dir, read_manifest(self.stage.packs)["inputs"]["store"])
        if not is_published(path):
            raise UserError(
                f"the token store {path} is gone, which says with which tokens answers end. "
                f"`sft prepare {self.run.config}` makes it again."
            )
        return TokenStore.open(path)

    def stop_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """The tokens that end an answer in training, the most frequent one first.

        Raises:
            UserError: the token store is gone.
        """
        return learned_stop_ids(self.store(), control_ids(tokenizer))

    def card(self, store: TokenStore) -> str:
        """What a reader of its folder should know."""
        end = read_stage_end(self.stage)
        is_end = end is not None and end.num_steps == self.step
        return model_card(self.config, store, self.stage, self.step, is_end)

    @contextmanager
    def opened(self) -> Iterator[CheckpointReader]:
        """Its checkpoint, every file of which was hashed.

        Raises:
            UserError: it is gone, damaged, or of another run.
        """
        storage, told = stage_storage(self.config.checkpoint, self.stage), [""]
        try:
            reader = open_newest_good(storage, OneRank(), told.append, only=self.step)
        except UserError as error:
            raise UserError(told[-1] or str(error)) from None
        assert reader is not None, "there is one, or it is damaged"
        with reader:
            about = {"stage": self.stage.name, "plan": PackPlan.open(self.stage.packs).first_inputs}
            if other := [key for key, value in about.items() if reader.manifest.get(key, value) != value]:
                raise UserError(
                    f"{storage.where(self.step)} is the checkpoint of another run: its {' and '.join(other)} differ."
                )
            yield reader

    @contextmanager
    def opened_if_there(self) -> Iterator[CheckpointReader | None]:
        """`opened`; None where retention or the end of the stage has deleted the checkpoint."""
        if self.step not in saved_steps(self.config, self.stage):
            yield None
            return
        with self.opened() as reader:
            yield reader


def read_run(run: RunFolder) -> SftConfig:
    """The config of a run, with its layout settled.

    Raises:
        UserError: it cannot be read.
    """
    config = build_config(read_yaml(run.config).content, str(run.config))
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": run.path})})
    if not run.layout.is_file():
        return config
    packing = read_json(run.layout)["layout"]
    return config.model_copy(update={"train": config.train.model_copy(update={"packing": packing})})


def find_model(run: RunFolder, stage: str | None, wanted: Wanted) -> RunModel:
    """The model that is meant, of which there is a checkpoint.

    Args:
        run: the folder of a run.
        stage: the stage's name; None: the last one with a checkpoint.
        wanted: see `Wanted`.

    Raises:
        UserError: there is none; the message says which there are.
    """
    config = read_run(run)
    names = [each.name for each in config.stages]
    if stage is not None and stage not in names:
        raise UserError(f"--stage {stage}: {run.path} has no such stage. It has {', '.join(names)}.")
    folders = [run.stage(i, name) for i, name in enumerate(names) if stage in (None, name)]
    for folder in reversed(folders):
        if steps := saved_steps(config, folder):
            return RunModel(run, config, folder, _step(run, config, folder, steps, wanted))
    models = [str(f.model) for f in folders if is_published(f.model)]
    there = f" There is the model at the stage's end already: {models[-1]}" if models else ""
    of = f"stage {stage} of {run.path}" if stage else str(run.path)
    raise UserError(f"{of} has no checkpoint, so there is nothing to export.{there}")


def saved_steps(config: SftConfig, folder: StageFolder) -> list[int]:
    """The steps of a stage of which there is a checkpoint, in order."""
    storage = stage_storage(config.checkpoint, folder)
    return [step for step in storage.steps() if storage.is_published(step)]


def _step(run: RunFolder, config: SftConfig, folder: StageFolder, steps: Sequence[int], wanted: Wanted) -> int:
    if wanted == "last":
        return steps[-1]
    step = _best(run, config, folder, steps) if wanted == "best" else wanted
    if step in steps:
        return step
    listed = ", ".join(f"{each:,}" for each in steps[-_SHOWN:])
    what = f"--step best: that is step {step:,}, and" if wanted == "best" else f"--step {step}:"
    raise UserError(
        f"{what} stage {folder.name} has no checkpoint after {step:,} steps. It has those after {listed}. "
        "Which are kept: checkpoint.keep_last, keep_every_steps and best."
    )


def _best(run: RunFolder, config: SftConfig, folder: StageFolder, steps: Sequence[int]) -> int:
    rule, end = config.checkpoint.best, read_stage_end(folder)
    if end is not None and end.best is not None:
        return end.best.step
    if rule is None:
        raise UserError("--step best: the run does not say what is best. Set checkpoint.best, or give a step.")
    best = read_curve(run, folder, rule.score, rule.task, steps[-1]).best
    if best is None:
        raise UserError(f"--step best: stage {folder.name} has no evaluation with {rule.score} yet. Give a step.")
    return best.step


def open_model(model: RunModel, reader: CheckpointReader, dtype: str) -> CheckpointModel:
    """The model that an open checkpoint holds, in this dtype.

    Raises:
        UserError: see `CheckpointModel`.
    """
    return CheckpointModel(model.config.model, model.start, reader, getattr(torch, dtype))


def export_checkpoint(model: RunModel, reader: CheckpointReader, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Publish the model at `folder`, unless it is there.

    Args:
        model: which one.
        reader: its open checkpoint.
        tokenizer: the run's.
        folder: where it goes.
        dtype: of the trained parameters in the files.

    Raises:
        UserError: `folder` holds something else, or the model cannot be exported so.
        OSError: it cannot be written; nothing is left of it.
    """
    saved, numbers = open_model(model, reader, dtype), getattr(torch, dtype)
    stop_ids, about = model.stop_ids(tokenizer), About(partial(model.card, model.store()), model.about)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    aside = export_aside(folder, _ATTEMPT)
    try:
        with FileLock(lock, blocking=False):
            try:
                # Again, now that nobody else writes it: a folder without a manifest would be replaced.
                if not is_there(model, folder, dtype):
                    export_model(saved, tokenizer, folder, numbers, _ATTEMPT, stop_ids, about)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"{folder}: another `sft export` writes it at this moment.") from None


def is_there(model: RunModel, folder: Path, dtype: str) -> bool:
    """Whether the folder holds this model already; it may be written if not.

    Raises:
        UserError: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise UserError(f"--to {folder}: there is a file of that name. Name a folder that does not exist.")
    if is_published(folder):
        manifest = read_manifest(folder)
        wanted = {"kind": "model", "dtype": dtype, **model.place}
        if all(manifest.get(key) == value for key, value in wanted.items()):
            return True
        if manifest.get("kind") == "model":
            of = ", ".join(f"{key} {manifest[key]}" for key in ("stage", "step", "dtype") if key in manifest)
            raise UserError(f"--to {folder}: it holds another model ({of}). Name a folder that does not exist.")
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:_SHOWN])
    raise UserError(f"--to {folder}: it holds other files ({there}). Name a folder that does not exist.")
