"""Small templates with what is learned of a record written beside each: one kind of template, one case."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sft.config import SourceConfig
from sft.data.formats.formatting import format_record
from sft.data.rendering.chat_template import TemplateRenderer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.tokenization import ExampleTokenizer
from sft.schema import Example, Record, RecordLocation

CASES = json.loads((Path(__file__).parent / "template_cases.json").read_text(encoding="utf-8"))
COLUMNS = {"messages": "messages", "tools": "tools"}
SOURCE = SourceConfig(name="s", path="s.jsonl", format="messages", columns=COLUMNS)


def marked(text, spans):
    for start, end in reversed(spans):
        text = f"{text[:start]}⟦{text[start:end]}⟧{text[end:]}"
    return text


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_what_the_model_must_write_is_learned_and_nothing_else(tokenizer_dir, case):
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir(None)))
    tokenizer.add_special_tokens({"additional_special_tokens": [*case["special_tokens"], case["eos_token"]]})
    tokenizer.eos_token, tokenizer.chat_template = case["eos_token"], case["template"]
    example_tokenizer = ExampleTokenizer(tokenizer)
    renderer = ConversationRenderer(
        TemplateRenderer(tokenizer),
        example_tokenizer.special_tokens,
        stop_tokens=frozenset(case.get("stop_tokens", [case["eos_token"]])),
        turn_end=case["eos_token"] if "turn_end" in case else None,
    )
    renderings = renderer.render(format_record(Record("s", 0, RecordLocation("s.jsonl", 1), case["record"]), SOURCE))
    expected = [text.replace("BOS", tokenizer.bos_token or "") for text in case["expected"]]
    assert [marked(rendering.text, rendering.answers) for rendering in renderings] == expected
    for rendering, example in zip(renderings, example_tokenizer.tokenize(renderings), strict=True):
        assert isinstance(example, Example)
        learned = "".join(rendering.text[start:end] for start, end in rendering.answers)
        assert tokenizer.decode(example.input_ids[example.loss_mask]) == learned
