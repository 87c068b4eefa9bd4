"""Stores in memory for what is shown of them: rows of tasks and sources by name, each as long as it says."""

from dataclasses import replace

import numpy as np

from sft.data.token_store import TokenStore
from sft.inspection.token_view import Kind, ShownExample, ShownToken
from tests.data.stores import store_of


def named_store(rows: list[tuple[str, str, int]]) -> TokenStore:
    """A store of rows given as task, source and length."""
    tasks, sources = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    store = store_of([row[2] for row in rows], task_ids=[tasks.index(row[0]) for row in rows], tasks=tuple(tasks))
    source_ids = np.array([sources.index(row[1]) for row in rows], dtype=np.int32)
    return replace(store, manifest={**store.manifest, "sources": sources}, source_ids=source_ids)


def shown(row: int, *passages: tuple[Kind, str], task: str = "copy", source: str = "basic") -> ShownExample:
    """An example of passages, given as kind and text; each word is a token, and its number the token's id."""
    words = [(kind, word) for kind, text in passages for word in text.split("|")]
    tokens = [ShownToken(word, i, kind) for i, (kind, word) in enumerate(words)]
    return ShownExample(row, task, source, f"{source}.jsonl:{row + 1}", tokens)
