"""Templates that look at the words of a conversation, and write something else around them."""

import pytest
from transformers import AutoTokenizer

from sft.data.rendering.chat_template import TemplateRenderer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.rendering.template_words import depends_on_words, template_literals
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError
from tests.data.conversations import turns

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONG = "many small bells ring over the river, " * 4

# A question or answer that the template looks at, and how it does.
LOOKED_AT = {
    "{{content}} | length > 60": LONG,
    "{{content}}.split() | length > 12": LONG,
    "{{content}} | wordcount > 12": LONG,
    "messages | map(attribute='content') | map('length') | max > 60": LONG,
    "{{content}}.splitlines() | length > 1": "river\nbell",
    "{{content}}.isdigit()": "42",
    "{{content}}[0] == '{'": "{river}",
    "{{content}} | first == '{'": "{river}",
    "({{content}} ~ '')[:1] == '['": "[1, 2]",
    "{{content}} | trim | last == '?'": "River?",
    "{{content}} | upper == {{content}}": "RIVER",
    "{{content}} == 'river'": "river",
    "{{content}} in ['river', 'bell']": "river",
    "messages | map(attribute='content') | select('equalto', 'bell') | list": "bell",
    "'careful' in {{content}} | lower": "Be CAREFUL",
    "'careful' in {{content}}": "be careful",
}


@pytest.fixture(scope="module")
def renderer(tokenizer_dir):
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir("chatml")))

    def build(template):
        tokenizer.chat_template = template
        return ConversationRenderer(TemplateRenderer(tokenizer), ExampleTokenizer(tokenizer).special_tokens)

    return build


@pytest.mark.parametrize("condition", LOOKED_AT)
def test_each_answer_has_its_own_prompt_before_it_however_words_are_looked_at(renderer, condition):
    looks = condition.replace("{{content}}", "messages[-1].content")
    build = renderer("{% if " + looks + " %}Look closely.\n{% endif %}" + CHATML)
    words = LOOKED_AT[condition]
    build.render(turns("one", "two", "three", "four"))
    num_rendered = 0
    for texts in (("one", "two", words, "four"), (words, "two", "three", "four"), ("one", words, "three", "four")):
        made = turns(*texts)
        try:
            renderings = build.render(made)
        except RecordError:  # the template writes other words before the answer once it is there
            continue
        num_rendered += 1
        for rendering in renderings:
            for turn, (start, _) in zip(rendering.turns, rendering.answers, strict=True):
                prompt = build._render_template(made.messages[:turn], for_generation=True)
                assert rendering.text[:start] == prompt
    assert num_rendered >= 2


def test_what_writes_the_same_around_all_words_goes_the_short_way(renderer):
    assert not depends_on_words(renderer(CHATML)._render_template)
    assert not depends_on_words(renderer(CHATML.replace("m.content", "m.content | trim | tojson"))._render_template)
    assert depends_on_words(renderer(CHATML.replace("m.content", "m.content | truncate(60)"))._render_template)


def test_roles_and_keys_are_no_words_that_are_looked_for():
    found = template_literals(
        "{% if m.role == 'developer' or m['role'] == 'model' or 'tool_calls' in m %}{{ m.content }}{% endif %}"
    )
    assert not found.search("a developer's model has tool_calls and content")
    assert template_literals("{{ m.content.split('</think>')[0] }}").search("so </think> it is")
