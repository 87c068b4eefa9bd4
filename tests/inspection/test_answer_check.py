"""What is learned is proven from prompt and stops alone: right masks pass for every kind of template, others do not."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sft.config import SourceConfig
from sft.data.formats.formatting import format_record
from sft.data.rendering.chat_template import TemplateRenderer
from sft.data.rendering.inference import Inference
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.tokenization import ExampleTokenizer
from sft.inspection.answer_check import AnswerCheck, LearnedRun
from sft.inspection.check_result import Invariant
from sft.inspection.template_texts import TemplateTexts
from sft.schema import Record, RecordLocation

CASES = json.loads((Path(__file__).parents[1] / "data" / "template_cases.json").read_text(encoding="utf-8"))
SOURCE = SourceConfig(name="s", path="s.jsonl", format="messages", columns={"messages": "messages", "tools": "tools"})


class Case:
    """A case's renderings, and the check of any span of one of them."""

    def __init__(self, case, folder):
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        tokenizer.add_special_tokens({"additional_special_tokens": [*case["special_tokens"], case["eos_token"]]})
        tokenizer.eos_token, tokenizer.chat_template = case["eos_token"], case["template"]
        stops = frozenset(case.get("stop_tokens", [case["eos_token"]]))
        end = case["eos_token"] if "turn_end" in case else None
        template = TemplateRenderer(tokenizer)
        renderer = ConversationRenderer(
            template, ExampleTokenizer(tokenizer).special_tokens, stop_tokens=stops, turn_end=end
        )
        record = Record("s", 0, RecordLocation("s.jsonl", 1), case["record"])
        self.renderings = renderer.render(format_record(record, SOURCE))
        self.control = renderer.bounds.control
        self._tokenizer, self._texts = tokenizer, TemplateTexts(tokenizer, template.form)
        self._inference = Inference(stops, end, form=template.form)
        self._check = AnswerCheck(tokenizer, self._texts, self._inference)

    def answers(self):
        return [(r, turn, span) for r in self.renderings for turn, span in zip(r.turns, r.answers, strict=True)]

    def wrong(self, rendering, turn, start, end, before=None, ends=()):
        run = LearnedRun(start, end, start + 1, before or (max(start - 1, 0), start))
        check = AnswerCheck(self._tokenizer, self._texts, self._inference, ends) if ends else self._check
        return check.check(rendering.conversation, turn, rendering.text, run)

    def id_of(self, token):
        return self._tokenizer.convert_tokens_to_ids(token)


@pytest.fixture(params=CASES, ids=[case["name"] for case in CASES])
def case(request, tokenizer_dir):
    return Case(request.param, tokenizer_dir(None))


def test_what_is_learned_of_every_kind_of_template_passes(case):
    for rendering, turn, (start, end) in case.answers():
        assert case.wrong(rendering, turn, start, end) == {}


def test_a_span_that_begins_earlier_or_later_is_found(case):
    for rendering, turn, (start, end) in case.answers():
        text = rendering.text
        for other in (start - 1, start + 1, text.index(text[start:end].lstrip()[1:3], start)):
            if other >= 0 and text[min(start, other) : max(start, other)].strip():
                assert Invariant.BEGIN in case.wrong(rendering, turn, other, end)


def test_a_span_without_its_last_token_or_with_the_next_one_is_found(case):
    for rendering, turn, (start, end) in case.answers():
        last = [token for token in case.control.finditer(rendering.text, start, end)][-1]
        assert case.wrong(rendering, turn, start, last.start()) != {}
        following = case.control.search(rendering.text, end)
        if following is not None:
            assert case.wrong(rendering, turn, start, following.end()) != {}


def test_a_span_that_begins_at_any_token_before_or_behind_is_found(case):
    for rendering, turn, (start, end) in case.answers():
        for token in case.control.finditer(rendering.text, 0, end):
            for place in (token.start(), token.end()):
                if place < end and rendering.text[min(place, start) : max(place, start)].strip():
                    assert Invariant.BEGIN in case.wrong(rendering, turn, place, end)


def test_a_span_without_the_first_of_the_tokens_that_share_a_character_is_found(case):
    for rendering, turn, (start, end) in case.answers():
        first = start + len(rendering.text[start:end]) - len(rendering.text[start:end].lstrip())
        assert Invariant.BEGIN in case.wrong(rendering, turn, first, end, before=(first, first + 1))


def test_a_token_that_ends_other_answers_and_stands_inside_this_one_is_found(case):
    for rendering, turn, (start, end) in case.answers():
        tokens = [token.group() for token in case.control.finditer(rendering.text, start, end)]
        for token in tokens[:-1]:
            assert Invariant.CONTROL in case.wrong(rendering, turn, start, end, ends=[case.id_of(token)])
        assert case.wrong(rendering, turn, start, end, ends=[case.id_of(tokens[-1])]) == {}
