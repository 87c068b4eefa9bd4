"""Each scorer: cases whose right verdict is known, and what holds for any text."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.schema import ToolCall
from sft.scoring.code_tests import code_in, what_is_wrong
from sft.scoring.registry import SCORERS, read_score
from sft.scoring.scorer import Answer, Question, Verdict

YES_NO = ("yes", "no")
COLOURS = ("red", "dark blue", "blue")
SIGNS = ("+", "-")
INTEGERS = ("-3", "3", "2.5")
LANGUAGES = ("C", "C++", "C#")
PAPER_BLEU = math.exp((math.log(5 / 6) + math.log(3 / 5) + math.log(1 / 4) + math.log(1 / 6)) / 4)


def judged(form, text: str, *references: str, **question) -> Verdict:
    return read_score(form).scorer.judge(Answer(text), Question(references, **question))


@pytest.mark.parametrize(
    ("form", "answer", "reference", "score"),
    [
        ("exact_match", "The  Cat!", "cat", 1),
        ("exact_match", "cats", "cat", 0),
        ("exact_match", "-", "+", 0),
        ("exact_match", "\u201cI don\u2019t know.\u201d", "I don't know", 1),
        ("exact_match", "the", "a", 0),
        ({"name": "exact_match", "normalize": False}, "Cat", "cat", 0),
        ("contains", "I saw the Big, black cat.", "big black cat", 1),
        ("contains", "concatenate", "cat", 0),
        ("contains", "我喜欢猫", "喜欢", 1),
        ("contains", "1 + 1", "+", 1),
        ("contains", "about 1.5 of them, or 15, or .5", "5", 0),
        ("contains", "It is 5.", "5", 1),
        ("contains", "It costs $1,500.25.", "1,500.25", 1),
        ("contains", "It costs $1,500.25.", "500", 0),
        ("contains", "3, 4,5", "5", 1),
        ("exact_match", "cafe\u0301", "caf\xe9", 1),
        ("number", "so 10-5 = 5", "5", 1),
        ("number", "It is -$1,234.50.", "-1234.5", 1),
        ("number", "x #### 42 and then 7", "so it is\n#### 42", 1),
        ("number", "1e3", "1,000", 1),
        ("number", "1,2345", "2345", 1),
        ("number", "50%", "0.5", 1),
        ("number", "50%", "50", 1),
        ("number", "50%", "0.5%", 0),
        ("number", r"\frac{3}{4}", ".75", 1),
        ("number", "3/4", "0.75", 1),
        ("number", "on 1/2/2020", "2020", 1),
        ("number", "5 km", "$5", 1),
        ("number", "共５个", "5", 1),
        ("number", "H2", "2", 0),
        ("number", "5 cm^2", "5", 1),
        ("number", "5 cm²", "5", 1),
        ("number", "It is 3/4.", "0.75", 1),
        ("number", "3 1/2.", "3.5", 1),
        ("number", "10^3", "1000", 1),
        ("number", "2 × 10^{-3}", "0.002", 1),
        ("number", "1 000", "1000", 1),
        ("number", "1,00,000", "100000", 1),
        ("number", "1.234,56", "1234.56", 1),
        ("number", "1.234.567.", "1234567", 1),
        ("number", "0x10", "16", 1),
        ("number", "x^2 = 9", "9", 1),
        ("number", "**42**", "42", 1),
        ("number", "1/0", "1", 0),
        ("number", "\u22125", "-5", 1),
        ("number", "0.333", "1/3", 0),
        ({"name": "number", "tolerance": 0.01}, "0.333", "1/3", 1),
        ("json", '```json\n{"b": [1, 2], "a": 1.0}\n```', '{"a": 1, "b": [1, 2]}', 1),
        ("json", 'It is {"a": {"b": [1]}}, I think', '{"a": {"b": [1]}}', 1),
        ("json", '{"a": true}', '{"a": 1}', 0),
        ("json", 'Not {"a": 0}, but {"a": 1}', '{"a": 1}', 0),
        ("json", '{"a": 1}\n{"a": 0}', '{"a": 1}', 0),
        ("json", 'It is {"a": 1}, so {"a": 1.0}', '{"a": 1}', 1),
        ("json", 'See [1]: {"a": [2]}, as in [3]', '{"a": [2]}', 1),
        ("json", 'Of {"a": 0}:\n```json\n{"a": 1}\n```', '{"a": 1}', 1),
        ("json", '```\n{"a": 0}\n```\nor\n```\n{"a": 1}\n```', '{"a": 1}', 0),
        ("json", "[2, 1]", "[1, 2]", 0),
        ("json", '{"a": 1, "b": 2}', '{"a": 1}', 0),
        ("json", '{"a": NaN}', '{"a": null}', 0),
        ("rouge_l", "the cat sat on a mat", "the cat is on the mat", 2 * 4 / 12),
        ("rouge_l", "cats running", "cat run", 1),
        ("rouge_l", "кот сидит", "кот лежит", 0.5),
        ("bleu", "the cat sat on the mat", "the cat is on the mat", PAPER_BLEU),
        ("chrf", "ab", "abc", None),
        ("math", r"so $x = \frac12$", "0.5", 1),
        ("math", r"\boxed{x^2+2x+1}", "(x+1)^2", 1),
        ("math", "it is 7", "8", 0),
        ({"name": "regex", "pattern": "^(yes|no)"}, "yes, of course", "", 1),
        ({"name": "regex", "pattern": "(?i)yes|no", "whole": True}, "YES, of course", "", 0),
    ],
)
def test_a_score_is_what_it_is_by_hand(form, answer, reference, score):
    verdict = judged(form, answer, reference)
    first = next(iter(verdict.scores.values()))
    assert not verdict.failed
    assert first == pytest.approx(score) if score is not None else 0 < first < 1


@pytest.mark.parametrize(
    ("answer", "options", "right", "is_right"),
    [
        ("Yes", YES_NO, "yes", 1),
        ("Yes. There is no doubt", YES_NO, "yes", 1),
        ("I say no", YES_NO, "no", 1),
        ("I say no or yes", YES_NO, "no", 0),
        ("B", YES_NO, "no", 1),
        ("(b) perhaps", YES_NO, "no", 1),
        ("The answer is A.", YES_NO, "yes", 1),
        ("A cat sat", YES_NO, "yes", 0),
        ("it is dark blue", COLOURS, "dark blue", 1),
        ("it is dark blue", COLOURS, "blue", 0),
        ("dark blue or blue", COLOURS, "dark blue", 0),
        ("-", SIGNS, "-", 1),
        ("!", SIGNS, "+", 0),
        ("", YES_NO, "yes", 0),
        ("no", YES_NO, "B", 1),
        ("It is +.", SIGNS, "+", 1),
        ("3.", INTEGERS, "3", 1),
        ("-3.", INTEGERS, "3", 0),
        ("It is \u22123.", INTEGERS, "-3", 1),
        ("x is 3", INTEGERS, "-3", 0),
        ("between 2 and 5", INTEGERS, "2.5", 0),
        ("It is C++.", LANGUAGES, "C++", 1),
        ("It is C++.", LANGUAGES, "C", 0),
        ("The answer is C.", LANGUAGES, "C", 1),
        ("**C#**", LANGUAGES, "C#", 1),
        ("5 %", ("5%", "5 apples"), "5%", 1),
        ("50", ("50%", "50"), "50%", 0),
    ],
)
def test_a_choice_is_the_option_that_the_answer_names(answer, options, right, is_right):
    verdict = judged("choice", answer, right, options=options)
    assert verdict.scores == {"accuracy": is_right, "chance": 1 / len(options)}


def test_chance_is_the_share_of_options_that_is_right():
    assert judged("choice", "no", "yes", "no", options=(*YES_NO, "perhaps", "both")).scores["chance"] == 0.5
    assert judged("choice", "C++", "C", options=LANGUAGES).scores["chance"] == 1 / 3


def test_labels_of_options_may_be_numbers_or_none():
    assert judged({"name": "choice", "labels": "numbers"}, "2.", "no", options=YES_NO).scores["accuracy"] == 1
    assert judged({"name": "choice", "labels": "none"}, "B", "no", options=YES_NO).scores["accuracy"] == 0


CALL = '{"name": "f", "arguments": {"x": 1, "y": "a"}}'
MARKED = f"<tool_call>\n{CALL}\n</tool_call>"
OTHER_CALL = '{"name": "g", "arguments": {}}'
OTHER = f"<tool_call>{OTHER_CALL}</tool_call>"


@pytest.mark.parametrize(
    ("answer", "reference", "scores"),
    [
        (MARKED, CALL, (1, 1)),
        ('{"function": {"name": "f", "arguments": "{\\"y\\": \\"a\\", \\"x\\": 1.0}"}}', CALL, (1, 1)),
        ('{"name": "f", "parameters": {"x": 2, "y": "a"}}', CALL, (0, 1)),
        (MARKED + OTHER, OTHER + MARKED, (1, 1)),
        (MARKED, MARKED + OTHER, (0, 0)),
        (MARKED + MARKED, MARKED, (0, 0)),
        (MARKED + "<tool_call>{name: f</tool_call>", MARKED, (0, 0)),
        (MARKED + '<tool_call>{"name": "f", "argum', MARKED, (0, 0)),
        ("I call f", CALL, (0, 0)),
        (f"{CALL}; {CALL}", MARKED + MARKED, (1, 1)),
        (f"{CALL}\n{CALL}", CALL, (0, 0)),
        (f"{CALL}\n{CALL[:-1]}", CALL, (0, 0)),
        (f"```json\n{CALL}\n```\nIt {{is}} so.", CALL, (1, 1)),
        (f"{CALL} [so it is]", CALL, (1, 1)),
        (f"```json\n{CALL}\n```\n```json\n{OTHER_CALL}\n```", CALL, (0, 0)),
        (f"{CALL} and then {OTHER_CALL}", CALL, (0, 0)),
        (f"1. {CALL}\n2. {OTHER_CALL}", OTHER + MARKED, (1, 1)),
        (f'{CALL}\nIt gives: [{{"name": "Bob"}}]', CALL, (1, 1)),
        ('<tool_call>{"name": "f"}</tool_call>', '{"name": "f", "arguments": {}}', (1, 1)),
        ('{"name": "f"}', '{"name": "f", "arguments": {}}', (0, 0)),
    ],
)
def test_calls_are_equal_in_any_order(answer, reference, scores):
    assert tuple(judged("tool_call", answer, reference).scores.values()) == scores


def test_calls_that_were_read_already_are_compared():
    answer = Answer("", tool_calls=(ToolCall("f", {"x": 1}),))
    scorer = read_score("tool_call").scorer
    assert scorer.judge(answer, Question(tool_calls=(ToolCall("f", {"x": 1.0}),))).scores["tool_call"] == 1
    assert "f: x differs" in scorer.judge(answer, Question(tool_calls=(ToolCall("f", {"x": 2}),))).note


def test_length_and_stops_are_measured():
    assert read_score("length").scorer.judge(Answer("a", 7, stopped=False), Question()).scores == {
        "answer_tokens": 7,
        "stopped": 0,
    }


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("So:\n```python\nx = 1\n```\nand\n```\ny\n```", "x = 1\n"),
        ("```py\nx = 1", "x = 1"),
        ("```bash\npip install everything\n```\n```\nx = 1\n```", "x = 1\n"),
        ("1. So:\n   ```python\n   if x:\n       y = 1\n   ```", "if x:\n    y = 1\n"),
    ],
)
def test_the_code_of_an_answer_is_its_longest_block(answer, code):
    assert code_in(answer, ["assert x == 1"]) == code


IMPORTS, HELPER = "# first\nfrom math import sqrt\nimport os\n", "def helper(n):\n    return sqrt(n)\n"
MAIN, SHORTER = "def root(n):\n    return helper(n)\n", "root = sqrt\n\ndef root(n):\n    return sqrt(n)\n"
USE = "from answer import root\n\nresult = root(input('which root? ')), 'and much more'\nprint(result)\n"
OWN_TESTS = (
    "import pytest\n\ndef test_root():\n    assert root(4) == helper(4) == 3, 'a test of its own, and a wrong one'\n"
)
PYTHON_PROMPT = ">>> def root(n): ...\n>>> root(4)\n2.0\n"


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        ((HELPER, MAIN), HELPER + "\n" + MAIN),
        ((MAIN, HELPER), MAIN + "\n" + HELPER),
        ((IMPORTS, HELPER, "2.0\n", MAIN), "\n".join((IMPORTS, HELPER, MAIN))),
        ((MAIN, USE), MAIN),
        ((USE, MAIN), MAIN),
        ((PYTHON_PROMPT, MAIN, OWN_TESTS), MAIN),
        ((MAIN, SHORTER), MAIN + "\n" + SHORTER),
        ((HELPER, USE), USE),
    ],
)
def test_of_several_blocks_those_run_that_the_tests_need(blocks, code):
    answer = "\nand then\n".join(f"```python\n{block}```" for block in blocks)
    assert code_in(answer, ["import math", "assert root(4) == 2"]) == code


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("def check(candidate):\n    assert candidate(1) == 2", "check nothing"),
        ("import math\nMETADATA = {'author': 'x'}\nclass Case: pass", "check nothing"),
        ("# assert f(1) == 2\n'assert f(1) == 2'", "check nothing"),
        ("def test(): assert f(1) == 2\nif __name__ == '__main__':\n    test()", "check nothing"),
        ("assert f(1 == 2", "no Python"),
    ],
)
def test_code_is_not_judged_by_tests_that_cannot_tell(test, reason):
    verdict = read_score("code").scorer.judge(Answer("def f(x): return 0"), Question(tests=(test,)))
    assert (verdict.failed, verdict.scores) == (True, {})
    assert reason in verdict.note


@pytest.mark.parametrize("test", ["assert f(1) == 2", "check(f)", "x = f(1)", "for n in range(3): check(n)", "pass"])
def test_tests_that_can_fail_are_run(test):
    assert what_is_wrong(["def check(candidate): assert candidate(1) == 2", test]) == ""


@pytest.mark.parametrize(
    ("form", "question"),
    [
        ("number", Question(("none",))),
        ("json", Question(("none",))),
        ("tool_call", Question(("none",))),
        ("choice", Question(("maybe",), YES_NO)),
        ("choice", Question((), YES_NO)),
    ],
)
def test_a_question_that_cannot_be_judged_is_a_failure_with_its_reason(form, question):
    verdict = read_score(form).scorer.judge(Answer("1"), question)
    assert verdict.failed
    assert verdict.note
    assert verdict.scores == {}


# What holds for any text.

TEXTS = st.one_of(st.text(max_size=60), st.text("01.,/%$#-+eE{}[]\"':\\`ab \n", max_size=60))
ANY = {
    **{name: name for name in SCORERS if name not in ("regex", "code", "math", "judge")},
    "regex": {"name": "regex", "pattern": "a.b"},
}
GRADED = [form for name, form in ANY.items() if name not in ("length", "regex")]


@given(answer=TEXTS, reference=TEXTS, options=st.lists(TEXTS, max_size=3))
@settings(max_examples=25, deadline=None)
def test_no_text_raises(answer, reference, options):
    for form in ANY.values():
        score = read_score(form)
        verdict = score.scorer.judge(Answer(answer), Question((reference,), (*options, "x")))
        assert verdict.failed != bool(verdict.scores)
        assert {*verdict.scores} <= {*score.scorer.metrics}
        assert all(0 <= value <= 1 + 1e-9 for value in verdict.scores.values())


@given(answer=TEXTS)
@settings(max_examples=15, deadline=None)
def test_no_text_raises_in_mathematics(answer):
    assert 0 <= judged("math", answer, "x^2").scores["mathematics"] <= 1


@given(reference=TEXTS, kind=st.integers(0, 2), value=st.integers() | st.dictionaries(st.text(), st.booleans()))
@settings(max_examples=30, deadline=None)
def test_a_reference_is_right_against_itself(reference, kind, value):
    texts = (reference, json.dumps(value), json.dumps({"name": "f", "arguments": {"x": value}}))
    text = texts[kind]
    for form in GRADED:
        verdict = judged(form, text, text, options=(text, "other"))
        assert verdict.failed or next(iter(verdict.scores.values())) == pytest.approx(1)
    # It fails only where there is nothing of the kind to compare.
    for form in (
        "exact_match",
        "contains",
        "rouge_l",
        "chrf",
        "bleu",
        "choice",
        *(["json", "tool_call"] * (kind == 2)),
    ):
        assert not judged(form, text, text, options=(text, "other")).failed


@given(answer=TEXTS, references=st.lists(TEXTS, min_size=2, max_size=3), data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_best_reference_counts_in_any_order(answer, references, data):
    shuffled = data.draw(st.permutations(references))
    for form in GRADED:
        options = (*references, "x")
        all_of_them = judged(form, answer, *references, options=options)
        assert judged(form, answer, *shuffled, options=options).scores == all_of_them.scores
        fewer = judged(form, answer, *references[1:], options=options)
        for name, score in fewer.scores.items():
            assert all_of_them.scores[name] >= score
