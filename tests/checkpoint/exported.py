"""Trains and exports a model, and says how the folder differs from the one that transformers itself would save."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from sft.atomic_files import MANIFEST
from sft.checkpoint.export import export_model
from sft.config import SftConfig
from sft.data.collate import Batch
from sft.engine.engine import Engine
from sft.engine.engines import BuildEngine
from sft.engine.single_process import SingleProcessEngine
from sft.ranks.ranks import OneRank


def run_config(model: Path, dtype: str, packing: str = "packed") -> SftConfig:
    return SftConfig.model_validate(
        {
            "run": {"name": "export", "dir": str(model / "run")},
            "model": {"path": str(model), "dtype": dtype},
            "data": {"sources": [{"name": "unused", "path": "unused.jsonl"}]},
            "train": {"packing": packing},
            "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-2, "weight_decay": 0.1}}],
        }
    )


def train_on(batch: Batch, model: Path, dtype: str, build: BuildEngine = SingleProcessEngine) -> Engine:
    """The engine after two steps with weight decay, in the batch's layout."""
    config = run_config(model, dtype, batch.layout)
    engine = build(config, config.stages[0].optimizer, str(model), OneRank())
    for _ in range(2):
        engine.train_step([batch], int(batch.loss_mask_BT.sum()), 1e-2)
    return engine


def export_to(engine: Engine, tokenizer: Path, folder: Path, dtype: str, **options: Any) -> Path:
    export_model(engine, AutoTokenizer.from_pretrained(tokenizer), folder, getattr(torch, dtype), 1, **options)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a published folder but its manifest."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def saved_by_transformers(engine: Engine, base: Path, dtype: str, folder: Path) -> Path:
    """The folder that `save_pretrained` makes of the engine's weights."""
    config = AutoConfig.from_pretrained(base)
    plain = type(engine.hf_model).from_pretrained(base, config=config, dtype=getattr(torch, dtype))
    plain.load_state_dict(engine.hf_model.state_dict())
    plain.save_pretrained(folder)
    return folder


def difference(found: Path, expected: Path) -> str | None:
    """In what the folders differ: names, shapes, dtypes or values of tensors, or the config. None where in nothing."""
    ours, theirs = tensors_of(found), tensors_of(expected)
    if ours.keys() != theirs.keys():
        return f"names of tensors: {sorted(ours.keys() ^ theirs.keys())[:4]}"
    for what, of in (("shape", lambda t: t.shape), ("dtype", lambda t: t.dtype)):
        if names := [name for name in ours if of(ours[name]) != of(theirs[name])]:
            return f"{what} of tensors: {names[:4]}"
    if names := [name for name in ours if not torch.equal(ours[name], theirs[name])]:
        return f"values of tensors: {names[:4]}"
    configs = [json.loads((folder / "config.json").read_text()) for folder in (found, expected)]
    if names := sorted(key for key in {**configs[0], **configs[1]} if configs[0].get(key) != configs[1].get(key)):
        return f"config.json: {names[:4]}"
    return None
