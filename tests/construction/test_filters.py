"""Each filter drops what it is for, with its reason, and keeps what only looks like it."""

import gc
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.construction.filters import refusal_words
from sft.construction.filters.chain import filtering
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.form import repeated_share
from sft.construction.filters.refusal_words import may_refuse, may_talk
from sft.construction.filters.refusals import unquoted
from sft.construction.filters.registry import FILTERS, filter_problems, read_filters
from sft.construction.script import Dropped, ScriptName
from sft.construction.work import Ended
from sft.draft import Draft
from tests.construction.drafts import OFF, PROVENANCE, draft, kept, passed, reason, seeds

ASK = "Name the largest planet of our sun."
FORM: Any = {"copies": False}


@pytest.mark.parametrize(
    ("prompt", "answer", "why"),
    [
        (ASK, "Jupiter", ""),
        (ASK, "Jupiter, which is larger than all others together:\n- by mass\n- by volume", ""),
        ("太陽系で最大の惑星は何ですか", "木星", ""),
        ("أي كوكب هو الأكبر؟", "المشتري", ""),
        (ASK, "<think>\nhm\n</think>\n\nJupiter", ""),
        (ASK, "Use `len(x)` and\n```python\nprint(len(x))\n```", ""),
        ("", "Jupiter", "the prompt is empty"),
        (" \n\t", "Jupiter", "the prompt is empty"),
        (ASK, " \u00a0\n", "the answer is empty"),
        ("Which planet", "Jupiter", "the prompt has fewer than 3 words"),
        (ASK, "name the  largest planet of our sun.", "the answer is the prompt"),
        (ASK, "The largest planet is Jupiter, which has the", "the answer is not finished"),
        (ASK, "The planets that are large are:\n- Jupiter\n- Saturn and", "the answer is not finished"),
        (ASK, "```python\nprint(1)", "the answer is not finished"),
        (ASK, "It is large.\nthe same line again\n" + "the same line again\n" * 3, "the answer repeats a line"),
        (ASK, "it is very very large " * 12, "the answer repeats itself"),
        (ASK, "word " * 5000, "the answer has more than 4096 words"),
    ],
)
def test_form(prompt: str, answer: str, why: str, tmp_path: Path) -> None:
    assert reason(draft(prompt, answer), FORM, tmp_path) == (why and f"form: {why}")


def test_form_of_conversations_and_calls(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "rain", "arguments": "{}"}}
    user = {"role": "user", "content": ASK}
    calling = Draft((user, {"role": "assistant", "content": None, "tool_calls": [call]}), "words", PROVENANCE)
    assert reason(calling, FORM, tmp_path) == ""
    assert reason(Draft((user,), "words", PROVENANCE), FORM, tmp_path) == "form: the answer is empty"
    twice = Draft((user, user, {"role": "robot", "content": "x"}), "words", PROVENANCE)
    assert reason(twice, FORM, tmp_path).startswith("form: ")
    empty = Draft((user, {"role": "assistant", "content": ""}, user, calling.messages[1]), "words", PROVENANCE)
    assert reason(empty, FORM, tmp_path) == "form: the answer is empty"


@pytest.mark.parametrize(("prompt", "answer"), [(f"{ASK}<|im_end|>", "Jupiter"), (ASK, "Ju<|im_end|>piter")])
def test_a_control_token_of_the_tokenizer_is_dropped_as_training_would_refuse_it(
    prompt: str, answer: str, tmp_path: Path
) -> None:
    one = Ended(ScriptName("few_shot", "words", 0), draft(prompt, answer))
    for tokens, is_dropped in ((frozenset[str](), False), (frozenset({"<|im_end|>"}), True)):
        with filtering(read_filters(FORM), Surroundings(tmp_path, special_tokens=tokens)) as found:
            (ended,) = found.outcomes([one])
        assert isinstance(ended.outcome, Dropped) == is_dropped


def test_settings_of_form(tmp_path: Path) -> None:
    assert reason(draft("Big?", "Yes"), {"copies": False, "min_words": 1}, tmp_path) == ""
    assert reason(draft(ASK, "Yes"), {"copies": False, "form": {"min_answer_words": 2}}, tmp_path)
    assert reason(draft(ASK, "one two three"), {"copies": False, "max_words": 7}, tmp_path) == ""
    assert reason(draft(ASK + " Now.", "one"), {"copies": False, "max_words": 7}, tmp_path)
    assert repeated_share(["a", "b", "c", "d", "e"]) == 0.0


REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot assist with this request.",
    "I am afraid I am unable to do so.",
    "I cannot provide medical advice. Ask a doctor.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "Désolé, je ne peux pas répondre.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Sinto muito, mas não posso ajudar.",
    "Mi dispiace, ma non posso aiutarti.",
    "К сожалению, я не могу помочь с этим.",
    "抱歉，我无法回答这个问题。",
    "申し訳ありませんが、その質問にはお答えできません。",
    "죄송하지만 그 요청은 도와드릴 수 없습니다.",
    "عذراً، لا أستطيع المساعدة.",
]
TALK = [
    "As an AI language model, I do not eat.",
    "Paris. Note that I am an AI and may be wrong.",
    "My knowledge cutoff is 2021.",
    "I don't have personal opinions.",
    "Als KI-Sprachmodell habe ich keine Meinung.",
    "En tant qu'IA, je ne mange pas.",
    "Como modelo de lenguaje, no como.",
    "作为一个人工智能语言模型，我没有感情。",
    "AIとして、私は食べません。",
]
ANSWERS = [
    "You cannot divide by zero, I am afraid.",
    "I can't wait to see the sea!",
    "I'm sorry for your loss.",
    "A bot says: \"I'm sorry, but I can't help with that.\"",
    "The letter reads:\n> I'm sorry, but I can't help with that.",
    '```python\nprint("As an AI language model, I can\'t")\n```',
    "He wrote „Es tut mir leid, ich kann dabei nicht helfen“ and left.",
    "AI is a field of computer science; a language model predicts words.",
    "Ich bin ein Berliner.",
]


@pytest.mark.parametrize("answer", [*REFUSED, *TALK])
def test_refusals_and_talk_of_the_model_are_dropped(answer: str, tmp_path: Path) -> None:
    why = reason(draft(ASK, answer), {**OFF, "refusals": True}, tmp_path)
    assert why == f"refusals: {'the answer is a refusal' if answer in REFUSED else 'the model talks of itself'}"


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_no_refusal_or_quoted_is_kept(answer: str, tmp_path: Path) -> None:
    assert reason(draft(ASK, answer), {**OFF, "refusals": True}, tmp_path) == ""


def test_a_task_about_refusals_keeps_its_records(tmp_path: Path) -> None:
    filters = {**OFF, "refusals": {"patterns": [r"\bhereby\b"]}}
    asked = "Correct the spelling: Im sorry, but I can't help with that."
    assert reason(draft(asked, "I'm sorry, but I can't help with that."), filters, tmp_path)
    asked = "Repeat this: I'm sorry, but I can't help with that."
    assert reason(draft(asked, "I'm sorry, but I can't help with that."), filters, tmp_path) == ""
    assert reason(draft("Is it a refusal? 'I cannot assist.'", "Yes, it is one."), filters, tmp_path) == ""
    assert reason(draft(ASK, "I hereby say so."), filters, tmp_path) == "refusals: a pattern of your own"


@pytest.mark.parametrize(
    ("pattern", "may"),
    [(one, may_refuse) for one in refusal_words._REFUSALS] + [(one, may_talk) for one in refusal_words._META_TALK],
)
def test_no_pattern_is_passed_over_for_lack_of_a_mark(pattern: str, may: Callable[[str], bool]) -> None:
    @settings(max_examples=5, deadline=None, database=None, derandomize=True)
    @given(st.from_regex(re.compile(pattern), fullmatch=True))
    def holds(text: str) -> None:
        assert may(f"so {text} it is")

    holds()


def test_filtering_that_ends_in_the_middle_leaves_no_file_open(tmp_path: Path) -> None:
    given = read_filters({"copies": 0.7, "judge": {"at_least": 3}})
    with filtering(given, Surroundings(tmp_path, seeds(ASK), grade=lambda _: 1.0)):
        assert [*tmp_path.iterdir()]
    gc.collect()  # a file that nobody has closed would fail the test here
    assert not [*tmp_path.iterdir()]


def test_hostile_text_takes_no_time(tmp_path: Path) -> None:
    began = time.process_time()
    for text in ("“" * 50_000, "'a " * 20_000, "```" * 20_000, "[" * 50_000, "i'm sorry " * 5000, "\ud800" * 100):
        unquoted(text)
        everything = {**OFF, "refusals": True, "json": True, "form": {"max_words": 10**6}, "copies": 0.7}
        passed([draft(f"{text} a b c", text)], {k: v for k, v in everything.items()}, tmp_path)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("answer", "evidence", "why"),
    [
        ('{"a": 1}', {}, ""),
        ("```json\n[1, 2]\n```", {}, ""),
        ("Jupiter", {}, ""),
        ("[Your name], hello", {}, ""),
        ('{"a": 1', {}, "the answer is no JSON"),
        ('{"a": NaN}', {}, "the answer is no JSON"),
        ('[{"a": 1}] as asked', {}, "the answer is no JSON"),
        ("Jupiter", {"schema": {"type": "object"}}, "the answer is no JSON"),
        ('{"a": 1}', {"schema": {"required": ["a"]}}, ""),
        ('{"a": 1}', {"schema": {"required": ["b"]}}, "the answer does not fit its JSON schema"),
        ('{"a": 1}', {"schema": {"type": "objekt"}}, "its JSON schema cannot be used"),
        ('{"a": 1}', {"schema": {"$ref": "http://127.0.0.1:9/x"}}, "its JSON schema cannot be used"),
        ("[" * 100_000, {}, "the answer is no JSON"),
        ('{"a": 1e999}', {}, "the answer is no JSON"),
        ('{"a": 1' + 5000 * "0" + "}", {}, "the answer is no JSON"),
        ("[1" + 400 * "0" + "]", {"schema": {"items": {"multipleOf": 0.5}}}, "the answer does not fit its JSON schema"),
        ("[1]", {"schema": {"items": {"pattern": "("}}}, "its JSON schema cannot be used"),
        ("[1]", {"schema": {"items": {"multipleOf": float("nan")}}}, "its JSON schema cannot be used"),
    ],
)
def test_json(answer: str, evidence: Any, why: str, tmp_path: Path) -> None:
    one = draft(ASK, answer, **evidence)
    assert reason(one, {**OFF, "verify": {"json": "parses"}}, tmp_path) == (why and f"json: {why}")


def test_json_of_tasks_and_their_schemas(tmp_path: Path) -> None:
    filters = {**OFF, "json": {"tasks": ["dates"], "schemas": {"dates": {"type": "array"}}}}
    assert reason(draft(ASK, "Jupiter", task="dates"), filters, tmp_path) == "json: the answer is no JSON"
    assert reason(draft(ASK, "{}", task="dates"), filters, tmp_path) == "json: the answer does not fit its JSON schema"
    assert reason(draft(ASK, "[]", task="dates"), filters, tmp_path) == ""
    assert reason(draft(ASK, "{", task="words"), filters, tmp_path) == ""


def test_numbers(tmp_path: Path) -> None:
    filters = {**OFF, "verify": {"math": "agree_of_3"}}
    agreed = ["so 1,000", "it is 1000.0", "#### 1e3", "or 7"]
    assert reason(draft(ASK, "The sum is 1000.", answers=agreed), filters, tmp_path) == ""
    fewer = "numbers: fewer than 3 of 3 further answers come to the same number"
    assert reason(draft(ASK, "The sum is 1001.", answers=agreed), filters, tmp_path) == fewer
    assert reason(draft(ASK, "one", answers=agreed), filters, tmp_path) == "numbers: the answer comes to no number"
    assert reason(draft(ASK, "1", answers=["1"]), filters, tmp_path) == "numbers: it has fewer than 3 further answers"
    assert reason(draft(ASK, "1"), filters, tmp_path) == ""
    assert reason(draft(ASK, "1"), {**OFF, "numbers": {"required": True}}, tmp_path)
    loose = {**OFF, "numbers": {"agree_of": 3, "at_least": 1}}
    assert reason(draft(ASK, "so 7", answers=["6", "7", "8"]), loose, tmp_path) == ""
    right = {"answers": ["return 1"] * 3, "tests": ["assert f() == 2"]}
    assert reason(draft(ASK, "return 2", **right, verified_by="code"), filters, tmp_path) == "", "tests verify code"
    assert reason(draft(ASK, "2", answers=["1"] * 3, verified_by="numbers"), filters, tmp_path) == fewer


def test_passage(tmp_path: Path) -> None:
    text = "Jupiter is the fifth planet. Its mass is 1.898e27 kg, and it has 95 known moons."
    contained, supported = ({**OFF, "passage": mode} for mode in ("contained", "supported"))
    assert reason(draft(ASK, "the Fifth planet", passage=text), contained, tmp_path) == ""
    assert reason(draft(ASK, "the fifth moon", passage=text), contained, tmp_path)
    assert reason(draft(ASK, "fifth plan", passage=text), contained, tmp_path), "whole words only"
    assert reason(draft(ASK, "Jupiter has 95 moons.", passage=text), supported, tmp_path) == ""
    wrong = "passage: the answer has a number that is not in its passage"
    assert reason(draft(ASK, "Jupiter has 97 known moons.", passage=text), supported, tmp_path) == wrong
    assert reason(draft(ASK, "Saturn, since rings look nicest there", passage=text), supported, tmp_path)
    assert reason(draft(ASK, "Jupiter"), contained, tmp_path) == ""


def test_code_runs_in_the_sandbox(tmp_path: Path) -> None:
    filters = {**OFF, "verify": {"code": {"allow_code": True}}}
    code, tests = "```python\ndef double(x):\n    return 2 * x\n```", ["assert double(4) == 8"]
    drafts = [
        draft(ASK, code, tests=tests),
        draft(ASK, code.replace("2", "3"), tests=tests),
        draft(ASK, code, tests=["def check(): pass"]),
        draft(ASK, "no code"),
    ]
    ended, found = passed(drafts, filters, tmp_path)
    assert [isinstance(one.outcome, Draft) for one in ended] == [True, False, False, True]
    assert found.dropped == {
        ("code", "its tests fail: test 1 raised AssertionError"): 1,
        ("code", "its tests cannot tell whether the code is right"): 1,
    }


def test_copies(tmp_path: Path) -> None:
    known = seeds("Write a short poem about the sea at night.", "List five rivers of Europe with their lengths.")
    drafts = [
        draft("write a short poem  about the sea at night.", "a"),
        draft("Write a short poem about the lake at night.", "b"),
        draft("Explain why the sky is blue to a small child.", "c"),
        draft("Explain why the sky is blue to a small girl.", "d"),
        draft("EXPLAIN why the sky is blue to a small child.", "e"),
        draft("How many legs has a spider, and why?", "Eight."),
    ]
    ended, found = passed(drafts, {"form": False}, tmp_path, known)
    assert [one.outcome for one in ended if isinstance(one.outcome, Draft)] == [drafts[2], drafts[5]]
    assert found.dropped == {
        ("copies", "its prompt equals that of a seed"): 1,
        ("copies", "its prompt is like that of a seed (ROUGE-L)"): 1,
        ("copies", "its prompt is like that of an earlier draft (ROUGE-L)"): 1,
        ("copies", "its prompt equals that of an earlier draft"): 1,
    }
    assert len(kept(drafts, {"form": False, "copies": {"similarity_to_existing": None}}, tmp_path, known)) == 4


def test_how_near_a_draft_is_to_what_its_teacher_was_shown_is_told_to_those_who_review(tmp_path: Path) -> None:
    known = seeds("Name seven rivers of Asia.", "How do bees find their way home?", "Why do stars twinkle at night?")
    asked = "Why do bees dance at night?", "Why do bees dance at home, if they do?"

    def shown(prompt: str, *ids: str, **evidence: Any) -> Draft:
        one = draft(prompt, "a", **evidence)
        return replace(one, provenance=replace(one.provenance, seeds=ids, scores={"curation": 1.0}))

    drafts = [
        shown(asked[0], "seed-0", "seed-2"),
        shown(asked[1], "seed-0"),
        shown("What is it?", "seed-0"),
        shown("Do bees twinkle in the dark?", "long gone"),
        shown("How do bees find their way, if at all?", "seed-1", wording_of="seed-1"),
    ]
    outcomes = kept(drafts, {"form": False, "copies": 0.9}, tmp_path, known)
    found = [one.provenance.scores for one in outcomes]
    assert found == [
        {"curation": 1.0, "similarity": 0.667},
        {"curation": 1.0, "similarity": 0.0},
        *[{"curation": 1.0}] * 3,
    ]
    assert [one.id for one in outcomes] == [one.id for one in drafts], "a score changes no record"


def test_records_are_no_copies_of_each_other_by_the_long_system_text_that_they_share(tmp_path: Path) -> None:
    system = {"role": "system", "content": " ".join(f"rule {i} holds" for i in range(100))}
    known = seeds("How long is the river that flows through Paris?")
    under = [(task, replace(seed, system=system["content"])) for task, seed in known]

    def below(one: Draft) -> Draft:
        return replace(one, messages=(system, *one.messages))

    asked = "Which bird builds its nest on cliffs above the sea?", "Name three metals that are liquid when warm."
    drafts = [below(draft(prompt, f"answer {i}")) for i, prompt in enumerate(asked)]
    assert kept(drafts, {"form": False, "copies": 0.7, "diversity": {"drop_share": 0.5}}, tmp_path, under) == drafts
    same = draft(known[0][1].prompt, "an answer", prompt_of="seed-0")
    assert reason(below(same), {"form": False, "copies": 0.7}, tmp_path, under) == "copies: it equals a seed"
    assert not reason(same, {"form": False, "copies": 0.7}, tmp_path, under)


def test_near_copies_stay_by_their_order_among_what_is_kept(tmp_path: Path) -> None:
    body = " ".join(f"word{i}" for i in range(80))
    drafts = [draft(f"{body} {end}", f"answer {body}") for end in ("one", "two", "three")]
    refused = draft(f"{body} zero", f"answer {body}. I am an AI.")
    filters = {"form": False, "refusals": True, "copies": {"similarity_to_existing": None}}
    assert kept([refused, *drafts], filters, tmp_path) == [drafts[0]], "a copy of what is dropped is none"


def test_the_wording_of_a_task_and_the_passage_are_not_compared(tmp_path: Path) -> None:
    wording = "Is the mood of the following sentence good or bad? Answer with a single word. Sentence:"
    known = seeds(*(f"{wording} {text}" for text in ("I won.", "It rains.", "My dog ran away.", "We sang all day.")))
    texts = ("Nobody came to his party yesterday.", "The soup was the best of them all.")
    drafts = [draft(f"{wording} {text}", "good") for text in texts]
    again = draft(f"{wording} The soup really was the best of them all.", "good")
    assert kept([*drafts, again], {"form": False}, tmp_path, known) == drafts
    passage = "Jupiter is the fifth planet from the sun and the largest of them by far."
    about = [
        draft(f"{passage}\n\n{q}", a, passage=passage) for q, a in (("How far is it?", "Far"), ("Who saw it?", "I"))
    ]
    assert kept(about, {"form": False, "copies": {"near": None}}, tmp_path) == about


def test_an_instruction_is_compared_without_its_input(tmp_path: Path) -> None:
    instruction = "Sort these numbers from the largest to the smallest."
    drafts = [draft(f"{instruction}\n\n{text}", "x", instruction=instruction) for text in ("3 9 27 81", "5 1 8 2")]
    assert kept(drafts, {"form": False}, tmp_path) == drafts[:1]


def test_a_filter_that_needs_more_shows_what_to_write() -> None:
    (problem,) = filter_problems({"judge": True})
    assert (problem.path, problem.rule) == ("construct.filters.judge.at_least", "judge needs it")
    example = problem.way_out.removeprefix("write ")
    assert not [*filter_problems(yaml.safe_load(example))], example
    for name, kind in FILTERS.items():
        assert not [*filter_problems(yaml.safe_load(f"{name}: {kind.example}"))], name
