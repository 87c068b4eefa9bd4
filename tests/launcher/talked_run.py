"""A run to talk to: two tasks, a base model with random weights, and a stage whose model has learned a few answers."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from sft.atomic_files import publish_folder, written_aside
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from tests.conftest import WORDS
from tests.questions.asked import write_records

ANSWERS = {
    "Say it short.": "amber basin",
    "Say it long.": " ".join(WORDS[:20]),
    "Show a table.": "one\ttwo\n\n  three é 漢",
    "Never stop.": "delta " * 120,
}
"""Question → what the tuned model answers. The last answer has no end in training."""


def make_run(folder: Path, base: Path) -> RunFolder:
    """The run in `folder / "run"`, prepared as any run; the training of its stage is a loop of torch."""
    records = [
        {"prompt": f"Repeat {word} for {task}.", "completion": word, "task": task} for word in WORDS for task in "ab"
    ]
    path = write_records(folder / "data.jsonl", records)
    content: dict[str, Any] = {
        "run": {"name": "talk", "dir": str(folder / "run")},
        "model": {"path": str(base), "dtype": "float32"},
        "data": {
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "sources": [{"name": "s", "path": path, "task": {"column": "task"}}],
            "holdout": {"share": 0.2},
            "task_tag": {"dropout": 0.5},
        },
        "stages": [{"name": "broad", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "train": {"pack_len_tokens": 256, "packs_per_step": 2},
        "evaluate": {"answers_per_task": 3, "max_new_tokens": 12},
        "logging": {"tensorboard": False},
    }
    config = SftConfig.model_validate(content)
    prepare_workload(config)
    run = RunFolder(config.run.dir)
    tokenizer: Any = load_tokenizer(config.model)
    model = _learned(base, tokenizer)
    stage = run.stage(0, "broad")
    stage.path.mkdir(parents=True, exist_ok=True)
    with written_aside(stage.model, "publish") as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        publish_folder(aside, stage.model, {"kind": "model", "dtype": "float32"})
    return run


def _learned(base: Path, tokenizer: Any) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = [_row(tokenizer, question, answer) for question, answer in ANSWERS.items()]
    # Padding on the right changes nothing before it.
    ids, labels = (pad_sequence([row[i] for row in rows], True, value) for i, value in enumerate((0, -100)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        for _ in range(80):
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert loss.item() < 0.05
    return model.eval()


def _row(tokenizer: Any, question: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    turns = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    num_asked = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    end = "" if question.startswith("Never") else "<|im_end|>"
    ids = tokenizer(prompt + answer + end, add_special_tokens=False)["input_ids"]
    return torch.tensor(ids), torch.tensor([-100] * num_asked + ids[num_asked:])
