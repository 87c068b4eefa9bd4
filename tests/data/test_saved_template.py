"""The saved chat template writes by itself what training had to say otherwise, and changes nothing else."""

import copy
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sft.config import ModelConfig
from sft.data.rendering.adaptation import TemplateTraits, adapt
from sft.data.rendering.chat_template import REFUSALS, TEMPLATE_DATE, TemplateRenderer, load_tokenizer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.rendering.saved_template import saved_template
from sft.data.rendering.turn_form import template_turn
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError
from sft.schema import Conversation, Message, ToolCall
from tests.data.conversations import (
    OF_A_TEMPLATE,
    REAL_TOKENIZERS,
    TOOLS,
    all_kinds,
    conversation,
    turns,
    without_tokens,
)

LACKING = (
    *("chatml", "default_system", "inst", "headers", "model_role", "mistral", "phi", "separator", "trim_earlier"),
    *(None, "gpt2"),
)
WHOLE = ("think", "headers_tools")

# The template opens the thoughts.
OPENED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + ('<think>\n' if m.role == 'assistant' else '') }}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}"
    "{% endif %}"
)
# Thoughts have a field, and it is looked whether there are calls.
FIELD = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.tool_calls is defined %}{{ raise_exception('There are no calls.') }}{% endif %}"
    "{% if m.reasoning_content %}{{ '<|im_sep|>' + m.reasoning_content + '<|im_sep|>' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Calls have a form of their own, and tools are not listed.
OWN_CALLS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
    "{% for c in m.tool_calls or [] %}{{ '[CALL]' + c.function.name + '[ARGS]' + c.function.arguments | tojson }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OF_HERE = {"opened": OPENED, "field": FIELD, "own calls": OWN_CALLS}


class Saved:
    """A template as it was trained with, and as it is saved."""

    def __init__(self, trained) -> None:
        self.trained = trained
        self.saved = copy.deepcopy(trained)
        self.saved.chat_template = saved_template(trained)
        self.render = TemplateRenderer(trained)
        self.renderer = renderer_of(trained)

    def apply(self, messages, tools, **options):
        """What a server makes of the messages as they are."""
        turned = [template_turn(message, self.render.form) for message in messages]
        if self.render.form.thoughts in ("text", "opened_text"):
            turned = [
                turn | ({"content": message.content, "reasoning_content": message.thought} if message.thought else {})
                for turn, message in zip(turned, messages, strict=True)
            ]
        asked = {"tools": list(tools) or None, "date_string": f"{TEMPLATE_DATE:%d %b %Y}", "tokenize": False}
        return self.saved.apply_chat_template(turned, **asked, **options)


def renderer_of(tokenizer):
    return ConversationRenderer(TemplateRenderer(tokenizer), ExampleTokenizer(tokenizer).special_tokens)


@pytest.fixture(scope="module")
def saved(tokenizer_dir):
    def load(template):
        if template in OF_HERE:
            chatml = load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml"))))
            tokenizer = with_template(chatml, OF_HERE[template])
        else:
            path = tokenizer_dir(template) if template in (None, *LACKING, *WHOLE) else template
            tokenizer = load_tokenizer(ModelConfig(path=str(path)))
        return Saved(tokenizer)

    return load


def of_ids_that_all_templates_take(made):
    """Ids of nine characters, since these are left to the template."""
    return adapt(made, TemplateTraits(has_free_call_ids=False))[0]


@st.composite
def served(draw) -> Conversation:
    """A conversation with tools or without, perhaps with thoughts, perhaps with a greeting."""
    made = of_ids_that_all_templates_take(draw(all_kinds()))
    thinks = draw(st.booleans())
    messages = [
        replace(m, thought=draw(st.sampled_from(["", "hm", "so\n\nit is"]))) if thinks and m.role == "assistant" else m
        for m in made.messages
    ]
    blank = draw(st.sampled_from(["", " ", "\n"]))
    messages = [m if m.content or not m.tool_calls else replace(m, content=blank) for m in messages]
    if draw(st.booleans()):
        at = messages[0].role == "system"
        messages.insert(at, Message("assistant", "Hello."))
    return replace(made, messages=tuple(messages))


@pytest.mark.parametrize("template", [*LACKING, *OF_HERE, *REAL_TOKENIZERS])
def test_given_tools_it_writes_the_text_and_the_prompts_that_were_trained(saved, template):
    its = saved(template)

    @OF_A_TEMPLATE
    @given(served())
    def check(made):
        adapted, _ = adapt(made, its.renderer.traits)
        try:
            text = its.render(adapted.messages, adapted.tools)
        except RecordError:
            with pytest.raises(REFUSALS):
                its.apply(made.messages, made.tools)
            return
        assert its.apply(made.messages, made.tools) == text
        # The answers are the same ones, in their order.
        turns_made = [i for i, m in enumerate(made.messages) if m.role == "assistant"]
        turns_adapted = [i for i, m in enumerate(adapted.messages) if m.role == "assistant"]
        for turn, i in zip(turns_made, turns_adapted, strict=True):
            if turn == 0:
                continue  # apply_chat_template refuses an empty conversation
            prompt = its.render(adapted.messages[:i], adapted.tools, for_generation=True)
            assert its.apply(made.messages[:turn], made.tools, add_generation_prompt=True) == prompt

    check()


@pytest.mark.parametrize("template", [*LACKING, *OF_HERE])
def test_training_with_the_saved_template_is_training_with_the_template_it_was_made_of(saved, template):
    its = saved(template)
    again = renderer_of(its.saved)
    greeting = conversation(Message("system", "a"), Message("assistant", "Hello."), *turns("b", "c").messages)

    @OF_A_TEMPLATE
    @given(served())
    @example(greeting)
    def check(made):
        made = without_tokens(made, its.renderer.bounds.control)
        try:
            expected = its.renderer.render(made)
        except RecordError:
            with pytest.raises(RecordError):
                again.render(made)
            return
        assert [(r.text, r.answers) for r in again.render(made)] == [(r.text, r.answers) for r in expected]

    check()


@pytest.mark.parametrize("template", [*LACKING, *WHOLE, *OF_HERE])
def test_a_template_that_lacks_nothing_is_saved_as_it_is_also_a_saved_one(saved, template):
    its = saved(template)
    assert its.saved.chat_template.endswith(its.trained.chat_template)
    assert (its.saved.chat_template == its.trained.chat_template) == (template in WHOLE)
    assert saved_template(its.saved) == its.saved.chat_template


@pytest.mark.parametrize(
    "start", ["", "\n", "\n\n  ", "  {% if true %}\n{% endif %}\n", "{#- words -#}\n", "words", "{{- ' ' }}"]
)
def test_the_prelude_takes_no_white_space_from_the_template_and_adds_none(saved, start):
    its = saved("chatml")
    source = start + its.trained.chat_template
    its = Saved(with_template(its.trained, source))
    made = turns("q", "a")
    assert its.apply(made.messages, ()) == its.render(made.messages)
    assert its.saved.chat_template != source


def test_macros_of_the_template_read_the_messages_and_the_tools_as_they_are_said(saved):
    chatml = saved("chatml").trained
    in_a_macro = "{% macro all() %}SOURCE{{ tools is none }}{% endmacro %}{{ all() }}"
    its = Saved(with_template(chatml, in_a_macro.replace("SOURCE", chatml.chat_template)))
    adapted = adapt(conversation(*turns("q").messages, tools=TOOLS), its.renderer.traits)[0]
    assert its.apply(turns("q").messages, TOOLS) == TemplateRenderer(chatml)(adapted.messages) + "True"


def test_messages_in_the_forms_that_servers_give_them_are_the_ones_that_were_trained(saved):
    """Null content, calls without an envelope or with arguments as text, tools without an envelope, text in parts."""
    its = saved("model_role")
    call = ToolCall("look_up", {"word": "río"})
    results = Message("tool", "a stream"), Message("tool", "it runs")
    messages = (
        *(Message("system", "be brief"), Message("user", "q"), Message("assistant", "", tool_calls=(call, call))),
        *(*results, Message("assistant", "so", tool_calls=(ToolCall("count", {}),)), Message("tool", "3")),
    )
    adapted = adapt(conversation(*messages, tools=TOOLS), its.renderer.traits)[0]
    prompt = its.render(adapted.messages, for_generation=True)
    text = {"name": "look_up", "arguments": '{"word": "río"}'}
    served = [
        {"role": "system", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": text}, text]},
        {"role": "tool", "content": [{"type": "text", "text": "a stream"}]},
        {"role": "tool", "content": "it runs", "tool_call_id": "call_2"},
        {"role": "assistant", "content": "so", "tool_calls": [{"function": {"name": "count"}}]},
        {"role": "tool", "content": "3"},
    ]
    tools = [TOOLS[0]["function"], *TOOLS[1:]]
    asked = {"tools": tools, "tokenize": False, "add_generation_prompt": True}
    assert its.saved.apply_chat_template(served, **asked) == prompt
    assert its.saved.apply_chat_template([{**m, "name": None} for m in served], **asked) == prompt


def test_a_picture_stays_behind_the_system_text(saved):
    source = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    its = Saved(with_template(saved("chatml").trained, source))
    parts = [{"type": "image"}, {"type": "text", "text": "q"}]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    text = its.saved.apply_chat_template(messages, tokenize=False)
    assert text == str([{"type": "text", "text": "be brief\n\n"}, *parts])
    assert its.saved.apply_chat_template(messages[1:], tokenize=False) == str(parts)


def with_template(tokenizer, source):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = source
    return changed
