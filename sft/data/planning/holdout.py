"""Which examples are kept out of training: a share of all prompts, whole tasks, and whole sources.

The hash of the prompt decides the share. So records with the same prompt are never on both sides, and the side of a
record does not depend on the other data of the run.
"""

import difflib
from collections.abc import Iterable

import numpy as np

from sft.config import HoldoutConfig
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.schema import BoolArray


def held_out_examples(store: TokenStore, holdout: HoldoutConfig) -> BoolArray:
    """True for each example that is never trained on: (num_examples,).

    Raises:
        UserError: a task of the config is not in the data.
    """
    tasks = [store.tasks.index(t) for t in check_tasks(holdout.tasks, store.tasks, "data.holdout.tasks")]
    sources = [store.manifest["sources"].index(name) for name in holdout.sources]
    unseen = np.isin(store.task_ids, tasks) | np.isin(store.source_ids, sources)
    # An example stands for the duplicates of it that were left out; one of them may belong to a benchmark.
    kept, of_tasks, of_sources = store.duplicates.T
    unseen_duplicates = np.isin(of_tasks, tasks) | np.isin(of_sources, sources)
    unseen[kept[unseen_duplicates]] = True
    # A prompt that a trained task or source shares with a held-out one would leak: it is held out there too.
    prompts = np.concatenate([store.prompt_hashes[unseen], store.duplicate_prompts[unseen_duplicates]])
    by_prompt = np.isin(store.prompt_hashes, prompts)
    by_share = store.prompt_hashes < np.uint64(min(int(holdout.share * 2**64), 2**64 - 1))
    return np.asarray(unseen | by_prompt | by_share)


def check_tasks(given: Iterable[str], known: list[str], path: str) -> list[str]:
    """`given`, if each is a task of the data.

    Raises:
        UserError: one is not; the message names the tasks of the data.
    """
    names = list(given)
    for name in names:
        if name not in known:
            more = f" and {len(known) - 50} more" if len(known) > 50 else ""
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"The tasks there: {', '.join(known[:50])}{more}."
            raise UserError(f"{path}: there is no task {name!r} in the data. {hint}")
    return names
