"""What stages may train on: everything not held out and, if the config asks for it, not similar to it either.

And of which tasks no stage trains on anything.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from sft.config import HoldoutConfig, SftConfig
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.overlap import Overlap, overlapping_examples
from sft.data.token_store import TokenStore
from sft.schema import BoolArray


class Trainable(NamedTuple):
    """The examples to train on, and what they have in common with the held-out ones."""

    examples: BoolArray  # (num_examples,)
    overlap: dict[str, Any] | None
    """The content of `overlap.json`; None where the config does not ask for it or nothing is held out."""


# Plans, questions and tables ask for the same, and each time the whole store would be read.
@lru_cache(maxsize=1)
def find_trainable(store: TokenStore, holdout: HoldoutConfig) -> Trainable:
    """The examples that stages may train on.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    held_out = held_out_examples(store, holdout)
    if holdout.decontaminate == "ignore" or not held_out.any():
        return Trainable(~held_out, None)
    found = overlapping_examples(store, held_out, holdout.ngram_tokens)
    examples = ~held_out & ~found.training if holdout.decontaminate == "remove" else ~held_out
    return Trainable(examples, _describe(found, store, holdout, held_out))


def trainable_examples(store: TokenStore, holdout: HoldoutConfig) -> BoolArray:
    """`find_trainable` without the overlap, which is looked for only where it is removed: (num_examples,).

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    if holdout.decontaminate == "remove":
        return find_trainable(store, holdout).examples
    return ~held_out_examples(store, holdout)


def unseen_tasks(config: SftConfig, store: TokenStore) -> tuple[str, ...]:
    """The tasks of the store that no stage of the run trains on, nor one of the run that it starts from.

    A task is unseen if all of its examples are held out or removed, or if no mixture has it.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    found = np.unique(store.task_ids[trainable_examples(store, config.data.holdout)])
    trainable = {store.tasks[task] for task in found}
    seen: set[str] = set()
    for mixture in (stage.mixture for stage in config.stages):
        seen |= trainable.intersection(mixture.named_tasks or trainable)
    for mixture in config.from_.mixtures.values() if config.from_ else ():
        seen.update(mixture.named_tasks or trainable)
    return tuple(task for task in store.tasks if task not in seen)


def _describe(found: Overlap, store: TokenStore, holdout: HoldoutConfig, held_out: BoolArray) -> dict[str, Any]:
    by_task = sorted(found.counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "overlap_len_tokens": holdout.ngram_tokens,
        "removed": holdout.decontaminate == "remove",
        "num_training": int(np.count_nonzero(~held_out)),
        "num_training_touched": int(np.count_nonzero(found.training)),
        "num_held_out": int(np.count_nonzero(held_out)),
        "num_held_out_touched": int(np.count_nonzero(found.held_out)),
        "by_task": [{"training": t, "held_out": h, "num_training_touched": n} for (t, h), n in by_task],
        "pairs": [{"training": str(store.location(t)), "held_out": str(store.location(h))} for t, h in found.pairs],
    }
