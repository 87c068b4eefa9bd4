"""Ties, ends and rounding: what counts as a difference, and what does not."""

import math
from typing import Any

import pytest

from sft.parity.case import Case
from sft.parity.comparison import Shown, compare_answers, compare_ends, compare_log_probs
from sft.parity.own_computation import OwnCase
from sft.parity.parity_result import Check
from sft.parity.plain_process import PlainCase, PlainResult
from sft.parity.tolerance import Tolerance, tolerance_of

CASE = Case("a case", (1, 2, 3, 4, 5), 3, (1, 2, 3))
SHOWN = Shown(lambda ids: "".join(f"<{i}>" for i in ids))


def plain(answer: tuple[int, ...] = (), **changes: Any) -> PlainResult:
    best = tuple((((token, -0.5), (token + 1, -0.5002))) for token in answer)
    fields = {"log_probs": (-1.0, -2.0), "answer": answer, "best": best, **changes}
    return PlainResult("float32", (2,), 0, {}, (PlainCase(**fields),))


def answers(theirs: tuple[int, ...], ours: tuple[int, ...], probs: tuple[float, float] = (-1.0, -1.0)) -> Check:
    own = [OwnCase((-1.0, -2.0), (-1.0, -2.0), ours)]
    return compare_answers([CASE], plain(theirs), own, Tolerance(1e-4, 1e-3), lambda *_: probs, SHOWN)


def test_equal_answers_are_no_difference() -> None:
    assert answers((7, 8, 2), (7, 8, 2)) == Check("answers", 1, 0)


def test_two_tokens_that_are_equally_probable_on_both_sides_are_a_tie() -> None:
    check = answers((7, 8, 2), (7, 9, 4), (-0.7, -0.7005))
    assert check.num_different == 0
    assert "1 of 1 answers part" in check.notes[0]


def test_a_tie_on_one_side_alone_is_a_difference() -> None:
    check = answers((7, 8, 2), (7, 9, 4), (-0.7, -0.9))
    assert "at token 1 of the answer, behind '<7>', plain transformers writes '<8>' (8)" in check.first
    assert "-0.7000 and -0.9000" in check.first
    assert answers((7, 8, 2), (7, 5, 4), (-0.7, -0.7005)).num_different == 1  # 5 is not probable in transformers


def test_an_answer_that_does_not_end_is_a_difference() -> None:
    check = answers((7, 2), (7, 2, 4))
    assert "plain transformers writes nothing and the trained model '<4>' (4): one of them ends there" in check.first


@pytest.mark.parametrize(("ends", "num"), [((2,), 0), ((0, 2), 1), ((0,), 2), ((), 1)])
def test_ends_are_compared_with_those_that_the_run_writes(ends: tuple[int, ...], num: int) -> None:
    result = PlainResult("float32", ends, None, {}, ())
    check = compare_ends(result, [2], [2], SHOWN)
    assert check.num_different == num
    assert ("training ends them at '<2>' (2)" in check.first) == (2 not in ends)
    assert "no pad token" in check.notes[0]


@pytest.mark.parametrize(
    ("found", "num"), [((-1.0001, -2.0), 0), ((-1.0, -2.1), 1), ((-1.0, math.nan), 1), ((-1.0009, -2.0009), 1)]
)
def test_log_probabilities_may_differ_by_rounding_alone(found: tuple[float, float], num: int) -> None:
    """Of one token, and less of all of them."""
    own = [OwnCase((-1.0, -2.0), (-1.0, -2.0), ())]
    check, allowed = compare_log_probs([CASE], plain(log_probs=found).cases, own, "float32", SHOWN)
    assert allowed == Tolerance(1e-4, 1e-3)
    assert check.num_different == num


def test_what_rounding_was_measured_to_do_is_allowed_twice_besides() -> None:
    assert tolerance_of("bfloat16", [0.1, 0.3]) == pytest.approx(Tolerance(0.03 + 0.4, 0.3 + 0.6))
    assert tolerance_of("bfloat16", []) == Tolerance(0.03, 0.3)
