"""Stores in memory, with the lengths, tasks and prompts that a test wants, and the configs that go with them."""

from pathlib import Path

import numpy as np

from sft.config import SftConfig
from sft.data.token_store import TokenStore

TASKS = {"chat": 900, "code": 500, "maths": 150, "poems": 40}
FILES = [{"name": "s.jsonl", "has_lines": True}]


def store_of(lengths, num_supervised=None, task_ids=None, prompt_hashes=None, tasks=("t",), name="store"):
    """A store with these examples; each learns its last tokens, half of it where not said otherwise."""
    lengths = np.asarray(lengths, dtype=np.int64)
    count = len(lengths)
    num_supervised = np.maximum(lengths // 2, 1) if num_supervised is None else np.asarray(num_supervised)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    loss_mask = np.zeros(offsets[-1], dtype=bool)
    for end, supervised in zip(offsets[1:], num_supervised, strict=True):
        loss_mask[end - supervised : end] = True
    return TokenStore(
        Path(name),
        {
            "tasks": list(tasks),
            "sources": ["s"],
            "inputs": {"sources": [{"name": "s", "content": name}]},
            "source_files": FILES,
        },
        np.arange(offsets[-1], dtype=np.uint32),  # no two tokens are equal: what is read can be told apart
        loss_mask,
        offsets,
        num_supervised.astype(np.int32),
        np.zeros(count, np.int32) if task_ids is None else np.asarray(task_ids, dtype=np.int32),
        np.zeros(count, np.int32),
        np.arange(count),
        random_hashes(count, seed=0) if prompt_hashes is None else np.asarray(prompt_hashes, dtype=np.uint64),
        file_ids=np.zeros(count, np.int32),
        line_numbers=np.arange(1, count + 1),
        instances=np.zeros(count, np.int32),
        duplicates=np.zeros((0, 3), np.int64),
        duplicate_prompts=np.zeros(0, np.uint64),
        token_keys=np.zeros(int(offsets[-1]), np.uint64),
    )


def random_hashes(count, seed):
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def random_store(seed=0, sizes=TASKS, max_len_tokens=256, name="store"):
    """Tasks of these sizes; lengths are log-normal; one prompt in five is asked twice."""
    rng = np.random.default_rng(seed)
    count = sum(sizes.values())
    lengths = np.clip(rng.lognormal(4.0, 0.8, count).astype(int), 4, max_len_tokens)
    num_supervised = np.maximum(1, (lengths * rng.uniform(0.1, 0.9, count)).astype(int))
    hashes = random_hashes(count, seed)
    hashes[: count // 5] = hashes[-(count // 5) :]
    task_ids = rng.permutation(np.repeat(np.arange(len(sizes)), list(sizes.values())))
    return store_of(lengths, num_supervised, task_ids, hashes, tuple(sizes), name)


def config_of(folder, *stages, **sections):
    """A config of these stages, given as the mapping of each; steps are small."""
    filled = [{"name": f"s{i}", "optimizer": {"lr": 1e-4}, "budget": {"epochs": 1}} | s for i, s in enumerate(stages)]
    content = {
        "run": {"name": "test", "dir": str(folder)},
        "model": {"path": "none"},
        "data": {"sources": [{"name": "s", "path": "s.jsonl", "format": "messages"}], "max_len_tokens": 256},
        "stages": filled,
        "train": {"pack_len_tokens": 256, "packs_per_step": 4},
    }
    for name, section in sections.items():
        content[name] = content.get(name, {}) | section
    return SftConfig.model_validate(content)
