"""The ids are the chat template's own; exactly the answers and their stop tokens are learned."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sft.config import ModelConfig
from sft.data.rendering.chat_template import TEMPLATE_DATE, TemplateRenderer, load_tokenizer
from sft.data.rendering.renderer import ConversationRenderer, Rendering
from sft.data.rendering.turn_form import TurnForm, template_turn
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError
from sft.schema import Conversation, Example
from tests.conftest import TEMPLATES
from tests.data.conversations import (
    CALLS_WITHOUT_TEXT,
    OF_A_TEMPLATE,
    REAL_TOKENIZERS,
    all_kinds,
    conversations,
    turns,
    without_tokens,
)

STOPS = {
    "chatml": "<|im_end|>",
    "default_system": "<|im_end|>",
    "think": "<|im_end|>",
    "inst": "</s>",
    "headers": "<|eot_id|>",
    "headers_tools": "<|eot_id|>",
    "model_role": "<end_of_turn>",
    "mistral": "</s>",
    "phi": "<|end|>",
    "separator": "<|im_end|>",
    "trim_earlier": "<|im_end|>",
    None: "<|im_end|>",
    "gpt2": "<|endoftext|>",
}


@dataclass
class Maker:
    """The data path from a conversation to an example, for one template."""

    tokenizer: Any
    form: TurnForm
    renderer: ConversationRenderer
    example_tokenizer: ExampleTokenizer

    def make(self, made: Conversation) -> Example:
        ((_, example),) = self.make_all(made)
        return example

    def make_all(self, made: Conversation) -> list[tuple[Rendering, Example]]:
        renderings = self.renderer.render(made)
        pairs = []
        for rendering, example in zip(renderings, self.example_tokenizer.tokenize(renderings), strict=True):
            if isinstance(example, RecordError):
                raise example
            pairs.append((rendering, example))
        return pairs

    def decode(self, ids: Any) -> str:
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def supervised_runs(self, example: Example) -> list[tuple[int, int]]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], example.loss_mask, [0]])))
        return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


@pytest.fixture(scope="module")
def maker(tokenizer_dir):
    def build(template, train_on="all_assistant", path=None):
        path = template if isinstance(template, Path) else path or tokenizer_dir(template)
        tokenizer = load_tokenizer(ModelConfig(path=str(path)))
        example_tokenizer, template = ExampleTokenizer(tokenizer), TemplateRenderer(tokenizer)
        renderer = ConversationRenderer(template, example_tokenizer.special_tokens, train_on=train_on)
        return Maker(tokenizer, template.form, renderer, example_tokenizer)

    return build


def words(text: str) -> str:
    """Without white space, and as a tokenizer that normalises its text (Qwen's) writes it."""
    return "".join(unicodedata.normalize("NFC", text).split())


def bare_rendering(text: str, answer: tuple[int, int]) -> Rendering:
    return Rendering(text, (answer,), turns("q", "a"), (1,))


def ask_template(maker: Maker, made: Conversation, num_turns: int | None = None, **how: Any) -> Any:
    """What the tokenizer's own chat template makes of the first turns."""
    messages = [template_turn(m, maker.form) for m in made.messages[:num_turns]]
    date = f"{TEMPLATE_DATE:%d %b %Y}"
    return maker.tokenizer.apply_chat_template(messages, list(made.tools) or None, date_string=date, **how)


@pytest.mark.parametrize("template", [*STOPS, *REAL_TOKENIZERS])
def test_exactly_the_answers_and_their_stop_tokens_are_learned(maker, template):
    build = maker(template)
    stops = [STOPS[template]] if template in STOPS else build.tokenizer.all_special_tokens

    @OF_A_TEMPLATE
    @given(all_kinds(thinks=True, text_with_calls=template not in CALLS_WITHOUT_TEXT))
    def check(made):
        made = without_tokens(made, build.renderer.bounds.control)
        for rendering, example in build.make_all(made):
            messages = rendering.conversation.messages
            # SmolLM2's vocabulary lacks some bytes, and so some characters of no known language.
            assume(template not in REAL_TOKENIZERS or words(build.decode(example.input_ids)) == words(rendering.text))
            assert example.input_ids.tolist() == ask_template(build, rendering.conversation, return_dict=False)
            assert not example.loss_mask[0]
            runs = build.supervised_runs(example)
            assert len(runs) == len(rendering.turns)
            for turn, span, (start, end) in zip(rendering.turns, rendering.answers, runs, strict=True):
                learned = build.decode(example.input_ids[start:end])
                assert any(learned.endswith(stop) for stop in stops)
                assert words(learned) == words(rendering.text[slice(*span)])
                assert words(messages[turn].content) in words(learned)
                # At most white space of the prompt comes with it, and only where one token covers both.
                answer = unicodedata.normalize("NFC", rendering.text[slice(*span)])
                before = unicodedata.normalize("NFC", learned).partition(answer)[0]
                assert before.strip() == ""
                assert len(before) < len(build.decode(example.input_ids[start : start + 1]))
                # And it stands where the model has to write it.
                asked = {"tokenize": False, "add_generation_prompt": True}
                prompt = unicodedata.normalize("NFC", ask_template(build, rendering.conversation, turn, **asked))
                context = unicodedata.normalize("NFC", build.decode(example.input_ids[:start]))
                assert context.rstrip() == prompt.rstrip()

    check()


@pytest.mark.parametrize("template", [template for template in STOPS if template != "think"])
def test_last_assistant_learns_the_last_answer_only(maker, template):
    every, last = maker(template), maker(template, "last_assistant")
    made = turns("first question", "first reply", "first question", "first reply")
    whole, part = every.make(made), last.make(made)
    assert whole.input_ids.tolist() == part.input_ids.tolist()
    assert last.supervised_runs(part) == every.supervised_runs(whole)[-1:]


def test_a_conversation_is_tokenized_alike_alone_and_in_a_batch(maker):
    build = maker("chatml")

    @given(st.lists(conversations(), max_size=4))
    def check(made):
        made = [without_tokens(one, build.renderer.bounds.control) for one in made]
        together = build.example_tokenizer.tokenize([r for c in made for r in build.renderer.render(c)])
        for one, other in zip(made, together, strict=True):
            alone = build.make(one)
            assert alone.input_ids.tolist() == other.input_ids.tolist()
            assert alone.loss_mask.tolist() == other.loss_mask.tolist()

    check()


def test_padding_and_truncation_in_the_tokenizers_file_change_nothing(maker, tokenizer_dir, tmp_path):
    tokenizer = load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml"))))
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer.save_pretrained(tmp_path)
    made = turns("one two three", "four five six")
    assert maker(None, path=tmp_path).make(made).input_ids.tolist() == maker("chatml").make(made).input_ids.tolist()


def test_a_template_without_stop_token_is_refused_with_its_text_and_the_way_out(maker):
    with pytest.raises(RecordError, match=r"no stop token behind the answer") as refused:
        maker("no_stop_token").make(turns("q", "a"))
    assert r"'user: q\nassistant: a\n'" in str(refused.value)
    assert "model.turn_end=auto" in str(refused.value)


def test_what_stands_between_an_answer_and_its_end_is_said(maker, tokenizer_dir, tmp_path):
    tokenizer = load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml"))))
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<answer>{{ m.content }}</answer>"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecordError, match=r"writes '</answer><\|im_end\|>' behind the answer") as refused:
        maker(None, path=tmp_path).make(turns("q", "a"))
    assert "eos_token_id in the model's generation_config.json" in str(refused.value)
    assert "no stop token" not in str(refused.value)


def test_a_text_that_begins_with_the_answer_is_refused(maker):
    (refused,) = maker("chatml").example_tokenizer.tokenize([bare_rendering("yes<|im_end|>", (0, 13))])
    assert isinstance(refused, RecordError)
    assert "nothing to predict it from" in str(refused)


def test_the_fingerprint_tells_tokenizers_and_templates_apart(maker):
    prints = {template: maker(template).example_tokenizer.fingerprint for template in STOPS}
    assert len(set(prints.values())) == len(STOPS)
    again = maker("chatml")
    again.make(turns("q", "a"))  # use leaves no trace
    assert ExampleTokenizer(again.tokenizer).fingerprint == prints["chatml"]


def test_sentencepiece_merges_the_templates_space_with_the_first_word_and_it_is_learned(maker, tmp_path):
    build = maker(None, path=write_sentencepiece_like(tmp_path))
    assert "▁river" in build.tokenizer.get_vocab()
    for answer in ("river", "river saddle", " river", "1", "é"):
        example = build.make(turns("amber basin", answer, "amber", answer))
        runs = build.supervised_runs(example)
        assert len(runs) == 2
        for start, end in runs:
            assert build.decode(example.input_ids[start:end]).removesuffix("</s>").strip() == answer.strip()
            assert build.decode(example.input_ids[:start]).rstrip().endswith("[/INST]")


def test_ids_beyond_the_size_of_the_vocabulary_are_kept(tmp_path):
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 70_000, "<e>": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    (example,) = ExampleTokenizer(tokenizer).tokenize([bare_rendering("a b <e>", (2, 7))])
    assert example.input_ids.tolist() == [0, 70_000, 1]


def write_sentencepiece_like(folder):
    """A BPE with `▁` for spaces and byte fallback, as Llama 2's, with its template."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    backend.train_from_iterator(["amber basin river saddle [INST] [/INST]"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = (TEMPLATES / "inst.jinja").read_text(encoding="utf-8").removesuffix("\n")
    tokenizer.save_pretrained(folder)
    return folder
