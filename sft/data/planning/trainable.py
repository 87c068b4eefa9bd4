"""What stages may train on: everything that is not held out, and, where the config says so, is not like it either.

Beside the answer stands the report of what training and held-out examples have in common, `overlap.json`.
"""

from typing import Any

import numpy as np

from sft.atomic_files import write_json
from sft.config import SftConfig
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.overlap import Overlap, overlapping_examples
from sft.data.token_store import TokenStore
from sft.run_folder import RunFolder
from sft.schema import BoolArray


def trainable_examples(config: SftConfig, store: TokenStore) -> BoolArray:
    """True for each example that stages may train on: (num_examples,). Writes the report of the overlap.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    holdout = config.data.holdout
    held_out = held_out_examples(store, holdout)
    report = RunFolder(config.run.dir).overlap
    report.unlink(missing_ok=True)
    if holdout.overlap == "ignore" or not held_out.any():
        return ~held_out
    found = overlapping_examples(store, held_out, holdout.overlap_len_tokens)
    write_json(report, _describe(found, config, store, held_out))
    return ~held_out & ~found.training if holdout.overlap == "remove" else ~held_out


def _describe(found: Overlap, config: SftConfig, store: TokenStore, held_out: BoolArray) -> dict[str, Any]:
    holdout = config.data.holdout
    by_task = sorted(found.counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "overlap_len_tokens": holdout.overlap_len_tokens,
        "removed": holdout.overlap == "remove",
        "num_training": int(np.count_nonzero(~held_out)),
        "num_training_touched": int(np.count_nonzero(found.training)),
        "num_held_out": int(np.count_nonzero(held_out)),
        "num_held_out_touched": int(np.count_nonzero(found.held_out)),
        "by_task": [{"training": t, "held_out": h, "num_training_touched": n} for (t, h), n in by_task],
        "pairs": [{"training": str(store.place(t)), "held_out": str(store.place(h))} for t, h in found.pairs],
    }
