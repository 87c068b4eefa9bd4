"""What each recipe asks, keeps and refuses; the teacher's replies are given one by one."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.construction.recipes import back_translation, evolve, multi_turn, paraphrase, rejection_sampling
from sft.construction.recipes.recipe import Seed
from sft.construction.script import Failed
from sft.draft import Draft
from sft.errors import UserError
from tests.construction.drafts import draft, kept, reason, seeds
from tests.construction.played import ASKED, answer_of, played

# ---------------------------------------------------------------- rejection sampling

SAMPLING = {"kind": "rejection_sampling", "verify": "numbers"}


def test_only_answers_that_agree_with_the_right_one_stay() -> None:
    replies = ["8", "3 + 4 makes\n#### 7", "It is seven, so 7", "no idea", None]
    for number in range(4):
        outcome, asked = played({**SAMPLING, "answers": 5}, replies, number=number)
        assert answer_of(outcome) in replies[1:3]
        assert isinstance(outcome, Draft)
        assert outcome.provenance.scores == {"agreement": 0.4}
        assert outcome.provenance.seeds == ("one",)
        assert {*outcome.evidence["answers"], answer_of(outcome)} == {*replies[:4]}
        assert [request.messages[0]["content"] for request in asked] == [ASKED.prompt] * 5
    outcome, _ = played({**SAMPLING, "answers": 5, "choose": "shortest"}, replies)
    assert answer_of(outcome) == "It is seven, so 7"
    assert played({**SAMPLING, "answers": 2}, ["8", "9"])[0] == Failed(rejection_sampling.NONE_RIGHT)


def test_without_a_right_answer_the_majority_is_right() -> None:
    open_seed = [Seed("one", "How much is it?", "Who knows", "sums")]
    outcome, _ = played({**SAMPLING, "answers": 4}, ["8", "7", "it is 8", "8.0"], open_seed)
    assert isinstance(outcome, Draft)
    assert outcome.provenance.scores == {"agreement": 0.75}
    wrong = {**SAMPLING, "answers": 4, "against": "majority"}
    assert answer_of(played(wrong, ["8"] * 4)[0]) == "8", "the seed's 7 does not count"
    assert played(wrong, ["8", "7", "9", "10"])[0] == Failed(rejection_sampling.NO_MAJORITY)
    assert played(wrong, ["who", "knows", "that", "?"])[0] == Failed(rejection_sampling.UNREADABLE)
    assert played(wrong, [None] * 4)[0] == Failed("no answer: away")


@pytest.mark.parametrize(
    ("verify", "right", "wrong"),
    [("json", '```json\n{"a": [1, 2.0]}\n```', '{"a": [2, 1]}'), ("exact", "the {A: 1, 2}!", "{a 1}")],
)
def test_other_verifiers(verify: str, right: str, wrong: str) -> None:
    known = [Seed("one", "Give it", '{"a": [1, 2]}' if verify == "json" else "{a: 1, 2}", "sums")]
    form = {"kind": "rejection_sampling", "verify": verify, "answers": 2}
    assert answer_of(played(form, [wrong, right], known)[0]) == right


def test_code_is_chosen_by_the_tests_of_its_record() -> None:
    code, tests = "```python\ndef double(x):\n    return 2 * x\n```", ("assert double(4) == 8",)
    form = {"kind": "rejection_sampling", "verify": "code", "allow_code": True, "answers": 2}
    known = [Seed("one", "Double it", "?", "sums", tests), Seed("two", "No tests", "?", "sums")]
    outcome, _ = played(form, [code.replace("2", "3"), code], known, number=1)
    assert answer_of(outcome) == code
    assert isinstance(outcome, Draft)
    assert outcome.evidence["tests"] == [*tests]
    assert outcome.provenance.scores == {"agreement": 0.5}
    vague = [Seed("one", "Double it", "?", "sums", ("def check(): pass",))]
    assert played(form, [code, code], vague)[0] == Failed("the tests cannot tell whether code is right")
    with pytest.raises(UserError, match="none has tests"):
        played(form, [code], known[1:])


def test_an_answer_that_is_too_deep_to_compare_is_wrong() -> None:
    known = [Seed("one", "Give it", '{"a": [1, 2]}', "sums")]
    form = {"kind": "rejection_sampling", "verify": "json", "answers": 2}
    outcome, _ = played(form, ["[" * 900 + "]" * 900, "[" * 100_000], known)
    assert outcome == Failed(rejection_sampling.NONE_RIGHT)
    nested = '{"a":' * 900 + "1" + "}" * 900
    assert isinstance(played(form, [nested, nested], [Seed("one", "Give it", nested, "sums")])[0], Draft | Failed)


@given(st.lists(st.sampled_from(["3", "4", "it is 5", "none"]), min_size=1, max_size=8))
def test_the_majority_is_the_largest_group(replies: list[str]) -> None:
    outcome, _ = played({**SAMPLING, "answers": len(replies), "against": "majority", "at_least": 0.01}, list(replies))
    counts = {text: replies.count(text) for text in ("3", "4", "it is 5")}
    if not any(counts.values()):
        assert outcome == Failed(rejection_sampling.UNREADABLE)
        return
    assert isinstance(outcome, Draft)
    assert counts[answer_of(outcome)] == max(counts.values())
    assert outcome.provenance.scores["agreement"] == max(counts.values()) / len(replies)


def test_another_answer_to_a_seed_is_no_copy_of_it_and_a_wording_may_be_near(tmp_path: Path) -> None:
    words = " ".join(f"word{i}" for i in range(60))
    known = seeds(f"Sort the words. {words}")
    same = draft(known[0][1].prompt, "quite another answer than that", prompt_of="seed-0")
    other = draft(f"Put the words in order. {words}", "an answer", wording_of="seed-0")
    for number, (one, marked) in enumerate([(same, True), (other, True), (same, False), (other, False)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = one if marked else draft(one.messages[0]["content"], one.messages[1]["content"])
        assert len(kept([one], {"form": False}, folder, known)) == marked
    (tmp_path / "again").mkdir()
    assert len(kept([other, other], {"form": False}, tmp_path / "again", known)) == 1
    (tmp_path / "answer").mkdir()
    known = [("words", Seed("one", "Say all words", words, "by_hand"))]
    back = [draft("Count up in words, please", words, **marked) for marked in ({"answer_of": "one"}, {})]
    assert kept(back, {"form": False, "copies": True}, tmp_path / "answer", known) == back[:1]
    (tmp_path / "passage").mkdir()
    asked = [
        draft(f"{words}\n\n{q}", "So", passage=words) for q in ("Who was it that came?", "Which of them is longest?")
    ]
    assert kept(asked, {"form": False}, tmp_path / "passage") == asked
    known = seeds(f"Sort the words. {words}")
    (tmp_path / "copy").mkdir()
    equal = draft(known[0][1].prompt, "an answer", prompt_of="seed-0")
    assert reason(equal, {"form": False}, tmp_path / "copy", known) == "copies: it equals a seed"


# ---------------------------------------------------------------- evolve

EVOLVE = {"kind": "evolve"}
HARDER = {"instruction": "How much is 3 + 4 + 5, step by step?"}


def test_an_instruction_is_evolved_so_often_and_then_answered() -> None:
    outcome, asked = played({**EVOLVE, "rounds": 2}, [HARDER, {"instruction": "And 3 × 5 × 7?"}, "It is 105."])
    assert isinstance(outcome, Draft)
    assert outcome.messages[0]["content"] == "And 3 × 5 × 7?" == asked[2].messages[0]["content"]
    assert ASKED.prompt in asked[0].messages[0]["content"]
    assert HARDER["instruction"] in asked[1].messages[0]["content"]
    assert len(outcome.evidence["evolved_by"]) == 2


def test_all_ways_are_drawn_and_a_direction_limits_them() -> None:
    def ways(**about: Any) -> set[str]:
        found = set()
        for number in range(40):
            outcome, _ = played({**EVOLVE, **about}, [HARDER, "12"], number=number)
            assert isinstance(outcome, Draft)
            found.update(outcome.evidence["evolved_by"])
        return found

    assert ways() == {"constraints", "deepen", "concretise", "reasoning", "broader"}
    assert ways(direction="deeper") == {"constraints", "deepen", "concretise", "reasoning"}
    assert ways(direction="broader") == {"broader"}


@pytest.mark.parametrize(
    ("replies", "failed"),
    [
        ([{"instruction": "how much is 3 + 4 ?!"}], evolve.SAME),
        ([{"instruction": "Make the given instruction harder: 3 + 5?"}], evolve.COPIED),
        ([HARDER, "I'm sorry, but I can't help with that."], evolve.REFUSED),
        ([HARDER, "…"], evolve.WORDLESS),
        ([HARDER, "<think>\nhm\n</think>\n\n"], "nothing behind the thought"),
        ([{"instruction": ""}], "instruction of the answer is empty"),
    ],
)
def test_an_evolution_that_failed_is_left_out(replies: list[Any], failed: str) -> None:
    outcome, _ = played(EVOLVE, replies)
    assert isinstance(outcome, Failed)
    assert outcome.reason == failed


# ---------------------------------------------------------------- back-translation, multi-turn, persona, paraphrase


def test_an_answer_gets_its_instruction_and_a_score() -> None:
    form = {"kind": "back_translation", "curate": True, "at_least": 3}
    outcome, asked = played(form, [{"instruction": "Add 3 and 4."}, {"score": 4}])
    assert isinstance(outcome, Draft)
    assert outcome.messages[1]["content"] == ASKED.answer
    assert outcome.provenance.scores == {"curation": 4.0}
    assert ASKED.prompt not in str(asked[0].messages)
    assert asked[1].temperature == 0.0
    for score, failed in ((2, back_translation.TOO_LOW), (6, back_translation.NO_SCORE), (True, None)):
        outcome, _ = played(form, [{"instruction": "Add 3 and 4."}, {"score": score}])
        assert outcome == Failed(failed or "score of the answer is not a whole number")
    long = [Seed("one", "p", "one two three four five", "sums")]
    assert played(form, [{"instruction": "Say: one two three four five"}], long)[0] == Failed(back_translation.LEAKED)


def test_a_conversation_has_its_turns_and_each_sees_those_before_it() -> None:
    replies = [{"message": "3 + 4?"}, "7.", {"message": "And one more?"}, "8."]
    outcome, asked = played({"kind": "multi_turn", "turns": 2}, replies)
    assert isinstance(outcome, Draft)
    assert [m["content"] for m in outcome.messages] == ["3 + 4?", "7.", "And one more?", "8."]
    assert [m["role"] for m in asked[3].messages] == ["user", "assistant", "user"]
    assert '"content": "7."' in asked[2].messages[0]["content"]
    again = [{"message": "3 + 4?"}, "7.", {"message": "3 +  4?"}]
    assert played({"kind": "multi_turn", "turns": 2}, again)[0] == Failed(multi_turn.REPEATED)


@pytest.mark.parametrize(
    ("wording", "failed"),
    [
        ("Please put in order: `a b` 12.5 {name} “x” kiwi fig", None),
        ("sort THESE: `a b`, 12.5 {name} “x” kiwi, fig!", paraphrase.SAME),
        ("Please put in order: `a b` 12 {name} “x” kiwi fig", paraphrase.LOST),
        ("Please put in order: `a c` 12.5 {name} “x” kiwi fig", paraphrase.LOST),
        ("Please put in order: `a b` 12.5 {who} “x” kiwi fig", paraphrase.LOST),
        ("Please put 2 in order: `a b` 12.5 {name} “x” kiwi fig", paraphrase.LOST),
        ("Please put in order: `a b` 12.5 {name} “x” fig kiwi", paraphrase.LOST_WORDS),
        ("Please put in order: `a b` 12.5 {name} “x” kiwi", paraphrase.LOST_WORDS),
    ],
)
def test_another_wording_keeps_what_the_answer_depends_on(wording: str, failed: str | None) -> None:
    known = [
        Seed(f"{i}", f"Sort these: `a b` 12.5 {{name}} “x” {w} {v}", "yes", "s")
        for i, (w, v) in enumerate([("kiwi", "fig"), ("pear", "nut"), ("plum", "oat"), ("rye", "tea"), ("bun", "ham")])
    ]
    for number in range(5):
        outcome, asked = played({"kind": "paraphrase"}, [{"prompt": wording}], known, number)
        if "kiwi" in asked[0].messages[0]["content"]:
            break
    if failed is None:
        assert isinstance(outcome, Draft)
        assert outcome.messages[1]["content"] == "yes"
    else:
        assert outcome == Failed(failed)
