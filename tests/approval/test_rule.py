"""What is approved follows from the rule alone, and a sample stands for the rest only below its bound."""

from collections.abc import Iterable, Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.approval.approved import approvals
from sft.approval.decisions import Decision, Decisions
from sft.approval.opinions import Opinions, opinion_of
from sft.approval.rule import OpinionOf, SampleResult, reviewer_agreement, sample_result, upper_end
from tests.approval.test_decisions import STEPS, built, decision, made

RECORDS = ["a", "b", "c"]


def on(decisions: Decisions) -> OpinionOf:
    return partial(opinion_of, decisions=decisions)


def approved(order: Sequence[str], decisions: Iterable[Decision], bound: float | None = None) -> list[str]:
    """The ids of what is approved, after edits."""
    return [one.record for one in approvals(order, Opinions({*order}, decisions), bound).values()]


def state(*said: tuple[str, str]) -> str:
    """Of the record `a`, after verdicts of reviewers."""
    return opinion_of("a", Decisions([decision(str(i), "a", v, who, "x") for i, (who, v) in enumerate(said)])).state


def test_one_reviewer_approves_and_one_who_rejects_prevents_it() -> None:
    assert state() == "open"
    assert state(("kim", "accept")) == "accepted"
    assert state(("kim", "accept"), ("lee", "reject")) == "rejected"
    assert state(("kim", "accept"), ("lee", "reject"), ("lee", "undo")) == "accepted"
    assert state(("kim", "reject"), ("kim", "accept")) == "accepted"


def test_who_skips_a_record_that_they_have_decided_on_takes_nothing_back() -> None:
    for verdict, expected in (("accept", "accepted"), ("reject", "rejected"), ("edit", "edited"), ("flag", "flagged")):
        assert state(("kim", verdict), ("kim", "skip")) == expected
        assert state(("kim", verdict), ("kim", "skip"), ("kim", "undo")) == expected, "the skip is taken back"
        assert state(("kim", verdict), ("kim", "skip"), ("kim", "undo"), ("kim", "undo")) == "open"
    assert state(("kim", "skip"), ("kim", "accept"), ("kim", "reject")) == "rejected"
    said = [
        decision("1", "a", "reject"),
        decision("2", "a", "edit", "lee", "x"),
        decision("3", made("x"), "skip"),
    ]
    opinion = opinion_of("a", Decisions(said))
    assert (opinion.state, opinion.skipped_by) == ("rejected", set()), "another version of it"
    records = [f"r{i}" for i in range(300)]
    some = [decision(name, name, "accept") for name in records[:90]]
    some += [decision("no", "r200", "reject"), decision("later", "r200", "skip")]
    passed = {*approved(records, some, 0.05)}
    assert passed == {*records} - {"r200"}


def test_what_is_flagged_needs_somebody_else() -> None:
    assert state(("kim", "flag")) == "flagged"
    assert state(("kim", "flag"), ("kim", "accept")) == "flagged"
    assert state(("kim", "flag"), ("lee", "accept")) == "accepted"
    assert state(("kim", "flag"), ("kim", "undo"), ("kim", "accept")) == "accepted"


def test_an_edited_record_takes_the_place_of_the_old_one() -> None:
    edit = decision("1", "a", "edit", text="x")
    assert approved(["a"], [edit]) == [made("x")]
    assert opinion_of("a", Decisions([decision("0", "a", "accept", "lee"), edit])).accepted_by == {"kim"}
    assert approved(["a"], [edit, decision("2", made("x"), "reject", "lee")]) == []
    assert approved(["a"], [edit, decision("2", "a", "undo")]) == []


def test_a_record_that_was_changed_later_is_not_approved() -> None:
    decisions = [decision("1", made("x"), "accept")]
    assert approved([made("x")], decisions) == [made("x")]
    assert approved([made("changed")], decisions) == []


@given(STEPS)
def test_what_is_approved_one_by_one_was_accepted_by_somebody_and_is_rejected_by_nobody(steps) -> None:
    decisions = Decisions(built(steps))
    found = approved(RECORDS, built(steps))
    for record in RECORDS:
        opinion = opinion_of(record, decisions)
        assert (opinion.id in found) == any(
            bool(one.accepted_by - one.flagged_by) and not one.rejected_by
            for one in (opinion_of(r, decisions) for r in RECORDS)
            if one.id == opinion.id
        )
        if opinion.id != record and record not in {opinion_of(r, decisions).id for r in RECORDS}:
            assert record not in found, "the old version"
    assert opinion_of("c", decisions).state == "open"


@given(STEPS)
def test_a_rejection_never_approves_anything_more(steps) -> None:
    before = built(steps)
    last = decision("last", opinion_of("a", Decisions(before)).id, "reject", "max")
    assert {*approved(RECORDS, [*before, last])} <= {*approved(RECORDS, before)}


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.3]))
@settings(max_examples=60)
def test_the_number_that_is_missing_is_the_least_that_suffices(num_records, data, bound) -> None:
    num = data.draw(st.integers(0, num_records))
    wrong = data.draw(st.integers(0, num))
    result = SampleResult(num_records, num, wrong, bound, upper_end(wrong, num, num_records) if num else 1.0)

    def suffices(more: int) -> bool:
        total = num + more
        return total == num_records or (total > 0 and upper_end(wrong, total, num_records) < bound)

    assert result.num_more == next(more for more in range(num_records + 1) if suffices(more))
    assert result.num_more <= result.num_more_at_rate <= num_records - num
    assert (result.num_more == 0) == result.suffices


def sampled(num_good: int, num_bad: int = 0) -> list[Decision]:
    verdicts = ["accept"] * num_good + ["reject"] * num_bad
    return [decision(str(i), f"r{i}", verdict) for i, verdict in enumerate(verdicts)]


ORDER = [f"r{i}" for i in range(1000)]


def test_a_sample_approves_all_but_the_rejected_once_its_bound_is_low_enough() -> None:
    need = SampleResult(1000, 0, 0, 0.05, 1.0).num_more
    assert need == 73, "3.84 / (73 + 3.84) < 0.05"
    assert len(approved(ORDER, sampled(72), 0.05)) == 72
    assert len(approved(ORDER, sampled(73), 0.05)) == 1000
    found = approved(ORDER, sampled(200, 2), 0.05)
    assert len(found) == 998
    assert not {"r200", "r201"} & {*found}


def test_the_sample_ends_at_the_first_record_without_a_verdict() -> None:
    gap = Decisions([decision(str(i), f"r{i}", "skip" if i == 10 else "accept") for i in range(500)])
    assert sample_result(ORDER, on(gap), 0.05).num_reviewed == 10
    other = Decisions([decision(str(i), f"r{i}", "accept") for i in range(300, 900)])
    assert sample_result(ORDER, on(other), 0.05).num_reviewed == 0


def test_an_edit_is_an_error_of_the_sample() -> None:
    edited = Decisions([decision(str(i), f"r{i}", "edit", text=f"x{i}") for i in range(3)])
    assert sample_result(ORDER, on(edited), 0.05).num_wrong == 3


def test_where_all_are_reviewed_nothing_is_estimated() -> None:
    result = sample_result(["r0", "r1"], on(Decisions(sampled(1, 1))), 0.01)
    assert str(result).startswith("All 2 are reviewed, 1 of them wrong.")
    assert result.suffices
    assert approved(["r0", "r1"], sampled(1, 1), 0.01) == ["r0"]


def test_two_reviewers_agree_as_cohens_kappa_says() -> None:
    both = [("accept", "accept")] * 20 + [("accept", "reject")] * 5 + [("reject", "accept")] * 10
    both += [("reject", "reject")] * 15
    said = [
        decision(f"{who}{i}", f"r{i}", verdict, who)
        for i, pair in enumerate(both)
        for who, verdict in zip(("kim", "lee"), pair, strict=True)
    ]
    alone = [decision("alone", "r99", "accept", "kim"), decision("skip", "r99", "skip", "lee")]
    (pair,) = reviewer_agreement(Decisions([*said, *alone]))
    assert (pair.first, pair.second, pair.agreement.num_marks) == ("kim", "lee", 50)
    assert pair.agreement.coefficient.value == pytest.approx(0.4)


@given(STEPS)
def test_opinions_that_follow_decisions_one_by_one_are_those_of_all_of_them(steps) -> None:
    opinions, decisions = Opinions([*RECORDS, made("x")]), Decisions(built(steps))
    for one in built(steps):
        opinions.add(one)
    for record in (*RECORDS, made("x")):
        assert opinions.of(record) == opinion_of(record, decisions)
