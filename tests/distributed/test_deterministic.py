"""Deterministic implementations give the same numbers on CPUs, and read no memory before they write it."""

from typing import Any

import pytest

from tests.distributed.launch import run_ranks


@pytest.mark.long
def test_steps_are_equal_to_the_bit_with_deterministic_implementations(workload: dict[str, Any]) -> None:
    assert run_ranks(2, "deterministically", workload)
