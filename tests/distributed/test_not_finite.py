"""A step that is not finite makes no update, on no rank, and leaves nothing behind."""

from typing import Any

from tests.distributed.launch import run_ranks


def test_a_run_with_spoiled_steps_equals_one_that_was_never_given_them(workload: dict[str, Any]) -> None:
    found = run_ranks(2, "not_finite", workload)
    assert found["errors"] == [[1, "the loss is nan", [1]], [3, "the gradient is not finite", []]]
    assert found["equal"]
