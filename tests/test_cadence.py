"""What comes again and again is due after the same steps, however one asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.cadence import Cadence
from sft.config import CheckpointConfig


def cadence(num_steps: int, epochs: float | None, **given: float | None) -> Cadence:
    return Cadence.of(CheckpointConfig.model_validate({"every_steps": None, **given}), num_steps, epochs)


@given(
    st.integers(1, 400),
    st.floats(0.1, 20),
    st.one_of(st.none(), st.floats(0.01, 30)),
    st.one_of(st.none(), st.integers(1, 500)),
)
def test_the_steps_that_are_listed_are_those_that_are_due(
    num_steps: int, epochs: float, every_epochs: float | None, every_steps: int | None
) -> None:
    found = cadence(num_steps, epochs, every_epochs=every_epochs, every_steps=every_steps)
    assert found.due_steps(num_steps) == [step for step in range(num_steps) if found.is_due(step)]


def test_a_part_of_an_epoch_is_the_nearest_step() -> None:
    assert cadence(100, 3, every_epochs=1).due_steps(100) == [33, 67]
    assert cadence(100, 3, every_epochs=0.5).due_steps(100) == [17, 33, 50, 67, 83]
    assert cadence(3, 3, every_epochs=0.1).due_steps(3) == [1, 2], "at most once a step"


def test_it_is_due_after_the_steps_and_after_the_epochs() -> None:
    assert cadence(20, 2, every_epochs=1, every_steps=4).due_steps(20) == [4, 8, 10, 12, 16]


@pytest.mark.parametrize("epochs", [None, 2.0])
def test_what_is_not_asked_for_is_never_due(epochs: float | None) -> None:
    assert cadence(50, epochs).due_steps(50) == []
    assert not cadence(50, epochs, every_steps=1).is_due(0)
