"""Deterministic implementations give the same numbers on CPUs, and read no memory before they write it."""

from typing import Any

from tests.distributed.launch import run_ranks


def test_steps_are_equal_to_the_bit_with_deterministic_implementations(workload: dict[str, Any]) -> None:
    assert run_ranks(2, "deterministically", workload)
