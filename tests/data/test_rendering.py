"""An answer's span is its place in the template's own text, and whole, or the record is refused with both texts."""

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import ModelConfig
from sft.data.rendering.adaptation import adapt
from sft.data.rendering.chat_template import REFUSALS, TEMPLATE_DATE, TemplateRenderer, load_tokenizer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.rendering.turn_form import template_turn
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError, UserError
from sft.schema import Message, ToolCall
from tests.data.conversations import (
    CALLS_WITHOUT_TEXT,
    OF_A_TEMPLATE,
    REAL_TOKENIZERS,
    TOOLS,
    all_kinds,
    conversation,
    conversations,
    turns,
    without_tokens,
)

TEMPLATES = (
    *("chatml", "default_system", "think", "inst", "headers", "headers_tools", "model_role", "mistral", "phi"),
    *("separator", "trim_earlier", None, "gpt2"),
)
ALL = [*TEMPLATES, *REAL_TOKENIZERS]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    def load(template, chat_template=None):
        path = template if isinstance(template, Path) else tokenizer_dir(template)
        return load_tokenizer(ModelConfig(path=str(path), chat_template=chat_template))

    return load


@pytest.fixture(scope="module")
def renderer(tokenizer):
    def build(template, train_on="all_assistant", chat_template=None):
        loaded = tokenizer(template, chat_template)
        special_tokens = ExampleTokenizer(loaded).special_tokens
        return ConversationRenderer(TemplateRenderer(loaded), special_tokens, train_on=train_on)

    return build


def render_one(renderer, made):
    (rendering,) = renderer.render(made)
    return rendering


def answers(renderer, made):
    return spans(render_one(renderer, made))


def spans(rendering):
    return [rendering.text[start:end] for start, end in rendering.answers]


def words(text):
    return "".join(text.split())


@pytest.mark.parametrize("template", ALL)
def test_the_text_is_that_of_the_tokenizers_own_chat_template(tokenizer, template):
    build = tokenizer(template)
    render = TemplateRenderer(build)
    date = f"{TEMPLATE_DATE:%d %b %Y}"

    @OF_A_TEMPLATE
    @given(all_kinds(thinks=True))
    def check(made):
        asked = {"tools": list(made.tools) or None, "date_string": date}
        try:
            text = render(made.messages, made.tools)
        except RecordError:
            with pytest.raises(REFUSALS):
                build.apply_chat_template(
                    [template_turn(m, render.form) for m in made.messages], tokenize=False, **asked
                )
        else:
            turned = [template_turn(m, render.form) for m in made.messages]
            assert text == build.apply_chat_template(turned, tokenize=False, **asked)

    check()


@pytest.mark.parametrize("template", ALL)
def test_every_answer_is_learned_once_and_whole_where_the_model_writes_it(tokenizer, renderer, template):
    load, build = tokenizer(template), renderer(template)
    form = TemplateRenderer(load).form
    date = f"{TEMPLATE_DATE:%d %b %Y}"

    @OF_A_TEMPLATE
    @given(all_kinds(thinks=True, text_with_calls=template not in CALLS_WITHOUT_TEXT, untrained=True))
    def check(made):
        made = without_tokens(made, build.bounds.control)
        if not any(m.role == "assistant" and m.train for m in made.messages):
            with pytest.raises(RecordError, match="no answer of the conversation is to be learned"):
                build.render(made)
            return
        learned = []
        for rendering in build.render(made):
            messages, tools = rendering.conversation.messages, rendering.conversation.tools
            for turn, (start, end) in zip(rendering.turns, rendering.answers, strict=True):
                message, answer = messages[turn], rendering.text[start:end]
                assert (message.role, message.train) == ("assistant", True)
                assert words(message.content) in words(answer)
                for call in message.tool_calls:
                    assert call.name in answer
                learned.append((message.content, message.tool_calls))
                asked = {"tools": list(tools) or None, "tokenize": False, "date_string": date}
                turned = [template_turn(m, form) for m in messages[: turn + 1]]
                prompt = load.apply_chat_template(turned[:-1], add_generation_prompt=True, **asked)
                assert rendering.text[:start].rstrip() == prompt.rstrip()
                until = load.apply_chat_template(turned, **asked)
                assert until.startswith(rendering.text[:end])
                assert until[end:].strip() in ("", load.eos_token)
        adapted = adapt(made, build.traits)[0].messages
        expected = [(m.content, m.tool_calls) for m in adapted if m.role == "assistant" and m.train]
        assert sorted(map(repr, learned)) == sorted(map(repr, expected))

    check()


@pytest.mark.parametrize("template", ALL)
def test_landmarks_place_the_answers_where_the_long_way_places_them(renderer, template):
    build = renderer(template)

    @OF_A_TEMPLATE
    @given(all_kinds(thinks=True, text_with_calls=template not in CALLS_WITHOUT_TEXT, untrained=True))
    def check(made):
        made = adapt(without_tokens(made, build.bounds.control), build.traits)[0]
        turns_learned = tuple(i for i, m in enumerate(made.messages) if m.role == "assistant" and m.train)
        text = build._render_template(made.messages, made.tools)
        placed = build._place_by_landmarks(made, turns_learned, text)
        if placed is not None:
            assert placed == build._place(made, turns_learned, text)

    check()


STOP = {"inst": "</s>", "headers": "<|eot_id|>", "headers_tools": "<|eot_id|>", "model_role": "<end_of_turn>"}


@pytest.mark.parametrize("template", ["chatml", "default_system", "separator", "phi"])
def test_the_spans_are_the_answers_and_their_stop_tokens(renderer, template):
    build = renderer(template)

    @given(conversations())
    def check(made):
        made = without_tokens(made, build.bounds.control)
        stop = "<|end|>" if template == "phi" else "<|im_end|>"
        assert answers(build, made) == [m.content + stop for m in made.messages if m.role == "assistant"]

    check()


@pytest.mark.parametrize("template", ["inst", "headers", "headers_tools", "model_role"])
def test_the_spans_are_the_answers_without_the_white_space_that_is_trimmed(renderer, template):
    build = renderer(template)

    @given(conversations())
    def check(made):
        made = without_tokens(made, build.bounds.control)
        due = [m.content.strip() for m in made.messages if m.role == "assistant"]
        assert [a.removesuffix(STOP[template]).strip() for a in answers(build, made)] == due

    check()


def test_the_span_is_not_that_of_an_equal_text_before_or_behind(renderer):
    @given(st.sampled_from(["a", "user", "assistant", "im_end", "|im_start|"]), st.data())
    def check(word, data):
        build = renderer("chatml")
        made = turns(word, word, word, word)
        rendering = render_one(build, made)
        turn = f"<|im_start|>{{}}\n{word}<|im_end|>\n"
        first = len(turn.format("user")) + len("<|im_start|>assistant\n")
        second = first + len(turn.format("user")) + len(turn.format("assistant"))
        length = len(word + "<|im_end|>")
        assert rendering.answers == ((first, first + length), (second, second + length))

    check()


@pytest.mark.parametrize("template", ["chatml", "headers", "inst"])
def test_last_assistant_trains_the_last_answer_only(renderer, template):
    made = turns("a", "b", "a", "b")
    every = render_one(renderer(template), made)
    last = render_one(renderer(template, "last_assistant"), made)
    assert last.text == every.text
    assert (last.answers, last.turns) == (every.answers[-1:], (3,))


EMPTY, END = "<think>\n\n</think>\n\n", "<|im_end|>"


def test_a_think_block_that_the_template_inserts_is_learned_since_the_model_has_to_write_it(renderer):
    first, last = renderer("think").render(turns("q", "one", "q", "two"))
    assert (first.turns, spans(first)) == ((1,), [f"{EMPTY}one{END}"])
    assert (last.turns, spans(last)) == ((3,), [f"{EMPTY}two{END}"])
    assert f"assistant\none{END}" in last.text


@pytest.mark.parametrize("template", ["think", "chatml"])
def test_thoughts_may_be_read_and_not_learned(tokenizer, template):
    loaded = tokenizer(template)
    special_tokens = ExampleTokenizer(loaded).special_tokens
    build = ConversationRenderer(TemplateRenderer(loaded), special_tokens, train_on_thoughts=False)
    made = conversation(Message("user", "q"), Message("assistant", "two", thought="one and\none"))
    rendering = render_one(build, made)
    assert spans(rendering) == [f"\n</think>\n\ntwo{END}"]
    assert rendering.text[: rendering.answers[0][0]].endswith("<think>\none and\none")


def test_an_answer_that_loses_its_think_block_before_later_turns_is_a_rendering_of_its_own(renderer):
    thought = "<think>\nhm\n</think>\n\n"
    made = turns("q", f"{thought}one", "q", "two", "q", f"{thought}three")
    first, second, last = renderer("think").render(made)
    assert (first.turns, spans(first)) == ((1,), [f"{thought}one{END}"])
    assert first.conversation.messages == made.messages[:2]
    assert (second.turns, spans(second)) == ((3,), [f"{EMPTY}two{END}"])
    assert (last.turns, spans(last)) == ((5,), [f"{thought}three{END}"])
    assert last.conversation == made
    assert all("hm" not in made.text[: made.answers[0][0]] for made in (second, last))


def test_an_answer_that_is_not_learned_needs_no_rendering_of_its_own(renderer):
    thought = "<think>\nhm\n</think>\n\n"
    made = turns("q", f"{thought}one", "q", f"{thought}two")
    assert render_one(renderer("think", "last_assistant"), made).turns == (3,)
    silent = conversation(made.messages[0], Message("assistant", f"{thought}one", train=False), *made.messages[2:])
    assert render_one(renderer("think"), silent).turns == (3,)


def test_a_message_that_is_not_to_be_trained_is_context(renderer):
    made = conversation(*turns("q", "a").messages, Message("user", "q"), Message("assistant", "b", train=False))
    rendering = render_one(renderer("chatml"), made)
    assert (rendering.turns, spans(rendering)) == ((1,), [f"a{END}"])
    assert "b<|im_end|>" in rendering.text
    with pytest.raises(RecordError, match="no answer of the conversation is to be learned"):
        renderer("chatml", "last_assistant").render(made)


@pytest.mark.parametrize("answer", ["<think>hm</think>two", "<think>\nhm</think> two", "<think></think>two"])
def test_a_think_block_is_learned_whole_where_the_template_writes_its_white_space_otherwise(renderer, answer):
    (learned,) = answers(renderer("think"), turns("q", answer))
    assert learned.startswith("<think>\n")
    assert words(learned) == words(answer + END)


def test_an_answer_that_is_nothing_but_a_think_block_is_learned_as_long_as_the_template_writes_it(renderer):
    alone, whole = renderer("think").render(turns("q", "<think>\nhm\n</think>\n\n", "q", "two"))
    assert words(spans(alone)[0]) == f"<think>hm</think>{END}"
    assert spans(whole) == [f"{EMPTY}two{END}"]
    # The template writes an empty one by itself: nothing shows that it is the answer's.
    with pytest.raises(RecordError, match="does not show where the answer is"):
        renderer("think").render(turns("q", EMPTY))


def test_an_answer_that_the_template_never_writes_whole_is_refused(renderer, tmp_path):
    path = tmp_path / "forgets.jinja"
    text = "{% for m in messages %}{{ m.role + '>' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% endfor %}"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match="does not write the whole answer"):
        renderer("chatml", chat_template=str(path)).render(turns("q", "<think>hm</think>two"))


CALL = ToolCall("look_up", {"word": "river", "limit": 3}, "call_1")
CALLED = {
    "think": '<think>\n\n</think>\n\n<tool_call>\n{"name": "look_up", "arguments": {"word": "river", "limit": 3}}\n'
    "</tool_call><|im_end|>",
    "headers_tools": '{"name": "look_up", "parameters": {"word": "river", "limit": 3}}<|eot_id|>',
    "mistral": '[TOOL_CALLS] [{"name": "look_up", "arguments": {"word": "river", "limit": 3}, "id": "000000001"}]</s>',
    "chatml": '<tool_call>\n{"name": "look_up", "arguments": {"word": "river", "limit": 3}}\n</tool_call><|im_end|>',
    "model_role": '<tool_call>\n{"name": "look_up", "arguments": {"word": "river", "limit": 3}}\n'
    "</tool_call><end_of_turn>",
}


@pytest.mark.parametrize("template", CALLED)
def test_tool_calls_are_answers_and_tool_results_are_not(renderer, template):
    call, result = Message("assistant", "", tool_calls=(CALL,)), Message("tool", "a stream", call_id="call_1")
    made = conversation(Message("user", "q"), call, result, Message("assistant", "a river"), tools=TOOLS)
    renderings = renderer(template).render(made)
    called, answered = [learned for rendering in renderings for learned in spans(rendering)]
    assert called == CALLED[template]
    assert answered.strip().removeprefix(EMPTY).startswith("a river<" if template != "mistral" else "a river</s>")
    assert "a stream" in renderings[-1].text
    assert "Does count." in renderings[-1].text


def test_text_in_front_of_a_call_is_learned_with_it_or_the_record_is_refused(renderer):
    made = conversation(Message("user", "q"), Message("assistant", "I look.", tool_calls=(CALL,)))
    assert answers(renderer("think"), made) == [CALLED["think"].replace("<tool_call>", "I look.\n<tool_call>")]
    for template in CALLS_WITHOUT_TEXT:
        with pytest.raises(RecordError, match="does not write the whole answer") as refused:
            renderer(template).render(made)
        assert "'I look.' + a call of look_up" in str(refused.value)


def test_a_call_whose_arguments_are_not_written_is_refused(renderer, tmp_path):
    path = tmp_path / "names.jinja"
    text = (
        "{% for m in messages %}{{ m.role + '>' + m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name + (c.function.arguments.probekey or '') }}{% endfor %}"
        "{{ '<|im_end|>' }}{% endfor %}"
    )
    path.write_text(text, encoding="utf-8")
    build = renderer("chatml", chat_template=str(path))
    assert build.traits.has_tool_calls
    with pytest.raises(RecordError, match="does not write the whole answer"):
        build.render(conversation(Message("user", "q"), Message("assistant", "", tool_calls=(CALL,))))


@pytest.mark.parametrize("template", ["upper_case", "no_answer"])
def test_a_template_that_does_not_write_the_answer_is_refused_with_both_texts(renderer, template):
    with pytest.raises(RecordError) as refused:
        renderer(template).render(turns("the question", "the reply"))
    assert "does not show where the answer is" in str(refused.value)
    assert "the answer:          'the reply'" in str(refused.value)
    assert "the template's text: '<|im_start|>user\\nthe question" in str(refused.value)


# Equal to the prompt, part of it, and part of the template: each stands in the text, none as the answer.
@pytest.mark.parametrize("answer", ["the question", "question", "assistant", "<|im_end|>\n"])
def test_a_template_that_ignores_the_answer_is_refused_although_its_words_are_there(renderer, answer):
    with pytest.raises(RecordError, match="does not show where the answer is"):
        renderer("no_answer").render(turns("the question", answer))


def test_what_the_template_itself_refuses_is_a_record_error(renderer):
    for template in ("inst", "model_role"):
        with pytest.raises(RecordError, match="must take turns"):
            renderer(template).render(conversation(Message("user", "q"), *turns("q", "a").messages))


def test_a_template_that_asks_for_today_is_told_the_same_day_in_every_run(renderer, tmp_path):
    text = render_one(renderer("headers_tools"), turns("q", "a")).text
    assert "Today Date: 26 Jul 2024\n" in text
    path = tmp_path / "today.jinja"
    path.write_text("{{ strftime_now('%Y') }}{% for m in messages %}>{{ m.content }}<|im_end|>{% endfor %}")
    year = render_one(renderer("chatml", chat_template=str(path)), turns("q", "a")).text[:4]
    assert int(year) == TEMPLATE_DATE.year < datetime.now().year


def test_a_long_text_is_shown_by_its_ends(renderer):
    with pytest.raises(RecordError) as refused:
        renderer("upper_case").render(turns("q", "x" * 3000))
    assert len(str(refused.value)) < 1500


def test_a_tokenizer_without_template_renders_chatml(renderer):
    expected = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert render_one(renderer(None), turns("q", "a")).text == expected
    assert render_one(renderer("inst", chat_template="chatml"), turns("q", "a")).text == expected


def test_where_chatml_has_no_end_mark_the_end_of_text_token_ends_each_turn(renderer):
    text = render_one(renderer("gpt2"), turns("q", "a", "q", "b")).text
    assert text.count("<|endoftext|>") == 4
    assert text.endswith("assistant\nb<|endoftext|>\n")


def test_a_template_file_takes_the_place_of_the_tokenizers_own(renderer, tmp_path):
    path = tmp_path / "own.jinja"
    marked = "{%- generation -%}{{ message.content }}<|im_end|>{%- endgeneration -%}"
    path.write_text("{% for message in messages %}{{ message.role }}>" + marked + "{% endfor %}", encoding="utf-8")
    rendering = render_one(renderer("inst", chat_template=str(path)), turns("q", "a"))
    assert rendering.text == "user>q<|im_end|>assistant>a<|im_end|>"


def test_a_broken_template_file_is_named_with_its_line(tokenizer_dir, tmp_path):
    path = tmp_path / "broken.jinja"
    path.write_text("{{ bos_token }}\n{% for message in %}", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.jinja:2: "):
        load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml")), chat_template=str(path)))
    with pytest.raises(UserError, match=r"missing\.jinja: model\.chat_template cannot be read"):
        load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml")), chat_template=str(tmp_path / "missing.jinja")))


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match="no tokenizer can be loaded from"):
        load_tokenizer(ModelConfig(path=str(tmp_path)))
    with pytest.raises(UserError, match="there is no folder"):
        load_tokenizer(ModelConfig(path=str(tmp_path / "absent")))


def test_a_tokenizer_without_words_which_is_made_from_a_config_alone_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(UserError, match=r"no tokenizer is in .*: name one that has words with model.tokenizer"):
        load_tokenizer(ModelConfig(path=str(tmp_path)))


def test_of_several_templates_the_default_one_is_taken_and_must_be_there(tokenizer, tmp_path):
    several = tokenizer("chatml")
    chatml = several.chat_template
    several.chat_template = {"tool_use": "{{ 1 }}", "default": chatml}
    several.save_pretrained(tmp_path / "with_default")
    assert load_tokenizer(ModelConfig(path=str(tmp_path / "with_default"))).chat_template == chatml
    several.chat_template = {"tool_use": "{{ 1 }}", "rag": "{{ 2 }}"}
    several.save_pretrained(tmp_path / "without")
    with pytest.raises(UserError, match=r"\(rag, tool_use\) and none is called default"):
        load_tokenizer(ModelConfig(path=str(tmp_path / "without")))
