"""Stop tokens that take in white space, or differ between turns that call a tool and turns of text."""

import json

import pytest
from transformers import AutoTokenizer

from sft.config import ModelConfig
from sft.data.rendering.chat_template import TemplateRenderer, load_tokenizer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError
from sft.schema import Example, Message, ToolCall
from tests.data.conversations import conversation, turns


def learned(folder, made):
    """What is learned of the conversation's one rendering, as text; or the reason why nothing is."""
    tokenizer = load_tokenizer(ModelConfig(path=str(folder)))
    example_tokenizer = ExampleTokenizer(tokenizer)
    renderer = ConversationRenderer(TemplateRenderer(tokenizer), example_tokenizer.special_tokens)
    (rendering,) = renderer.render(made)
    (example,) = example_tokenizer.tokenize([rendering])
    if isinstance(example, RecordError):
        return example
    assert isinstance(example, Example)
    spans = [rendering.text[start:end] for start, end in rendering.answers]
    return spans, tokenizer.decode(example.input_ids[example.loss_mask])


@pytest.fixture
def folder(tokenizer_dir, tmp_path):
    """A function that copies a tokenizer, with another template and with greedy control tokens."""

    def copy(template, text=None, greedy=()):
        tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir(template)))
        tokenizer.chat_template = text or tokenizer.chat_template
        tokenizer.save_pretrained(tmp_path)
        path = tmp_path / "tokenizer.json"
        content = json.loads(path.read_text())
        for token in content["added_tokens"]:
            if token["content"] in greedy:
                token |= {"lstrip": True, "rstrip": True}
        path.write_text(json.dumps(content))
        return tmp_path

    return copy


@pytest.mark.parametrize("ending", ["", " ", "\n", "  \n\n"])
def test_a_stop_token_that_takes_in_white_space_is_the_answers(folder, ending):
    """Phi-4's control tokens do so."""
    greedy = folder("separator", greedy=("<|im_start|>", "<|im_end|>", "<|im_sep|>"))
    spans, text = learned(greedy, turns("one", f"river bell{ending}"))
    assert text == "river bell<|im_end|>"
    assert spans == [f"river bell{ending}<|im_end|>"]
    _, text = learned(greedy, turns("one", f"river bell{ending}", "two", f"amber{ending}"))
    assert text == "river bell<|im_end|>amber<|im_end|>"


CALLS = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}"
    "<|begin_of_text|>{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("stop", ["<|end_header_id|>", "<|begin_of_text|>", "<|eot_id|>"])
def test_a_turn_that_calls_a_tool_may_end_in_another_token(folder, stop):
    """Of `<|eom_id|>` and `<|eot_id|>`, what both end in would be cut off the token."""
    path = folder("headers", text=CALLS.replace("<|begin_of_text|>", stop))
    call = Message("assistant", "", tool_calls=(ToolCall("look_up", {"word": "bell"}),))
    asked = [Message("user", "Ring?"), call]
    answered = [*asked, Message("tool", "it rings"), Message("assistant", "Yes.")]
    spans, text = learned(path, conversation(*asked))
    assert spans == [f'look_up {{"word": "bell"}}{stop}']
    assert text == f'look_up {{"word": "bell"}}{stop}'
    _, text = learned(path, conversation(*answered))
    assert text == f'look_up {{"word": "bell"}}{stop}Yes.<|eot_id|>'


def test_an_answer_that_a_token_of_the_template_swallows_is_refused(folder):
    text = "{% for m in messages %}{{ m.role }}: willowin{{ m.content }}<|im_end|>{% endfor %}"
    refused = learned(folder("chatml", text=text), turns("one", "g"))
    assert isinstance(refused, RecordError)
    assert "swallows" in str(refused)
