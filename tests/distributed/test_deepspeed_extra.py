"""No setting that `deepspeed.extra` takes changes the gradient or the update."""

from typing import Any

import pytest

from sft.deepspeed_extra import ALLOWED, FLAG, NAMES
from sft.engine.zero3_config import merged
from tests.distributed.launch import run_ranks
from tests.test_deepspeed_extra import at_path

NUM_GROUPS = 5
"""So many settings together are one try: neighbours, which may depend on each other, are not."""

OFF_BY_DEFAULT = (
    *("dump_state", "memory_breakdown", "wall_clock_breakdown"),
    *("enable_sanity_checks", "log_trace_cache_warnings"),
    *("stage3_allgather_sequential", "stage3_use_all_reduce_for_fetch_params"),
)
NAMED = {"classes": ["LlamaDecoderLayer"], "name_suffixes": ["mlp"], "names": ["model.model.layers.0"]}


def unusual(path: str) -> Any:
    """A value that DeepSpeed does not have by default."""
    name = path.rpartition(".")[2]
    if ALLOWED[path] is FLAG:
        return name in OFF_BY_DEFAULT
    return NAMED[name] if ALLOWED[path] is NAMES else 3000


@pytest.mark.long
def test_every_setting_that_may_be_given_leaves_the_numbers(
    workload: dict[str, Any], trajectory: list[list[float]]
) -> None:
    groups: list[dict[str, Any]] = [{} for _ in range(NUM_GROUPS)]
    for i, path in enumerate(ALLOWED):
        groups[i % NUM_GROUPS] = merged(groups[i % NUM_GROUPS], at_path(path, unusual(path)))
    changes = [{"deepspeed": {"extra": extra}} for extra in groups]
    found = run_ranks(2, "with_changes", {**workload, "changes": changes})
    for extra, steps in zip(groups, found, strict=True):
        assert steps == [pytest.approx(step, rel=1e-4) for step in trajectory[:2]], extra
