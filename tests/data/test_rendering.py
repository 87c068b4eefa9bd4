"""An answer's span is its place in the template's own text, or the record is refused with both texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import ModelConfig
from sft.data.chat_template import build_template_renderer, load_tokenizer
from sft.data.formatting import RecordError
from sft.data.rendering import ConversationRenderer
from sft.errors import UserError
from sft.schema import Message
from tests.data.conversations import conversation, conversations, turns


@pytest.fixture(scope="module")
def renderer(tokenizer_dir):
    def build(template, train_on="all_assistant", chat_template=None):
        tokenizer = load_tokenizer(ModelConfig(path=str(tokenizer_dir(template)), chat_template=chat_template))
        return ConversationRenderer(build_template_renderer(tokenizer), train_on)

    return build


def answers(renderer, made):
    rendering = renderer.render(made)
    return [rendering.text[start:end] for start, end in rendering.answers]


@pytest.mark.parametrize("template", ["chatml", "default_system"])
def test_the_spans_are_the_answers(renderer, template):
    build = renderer(template)

    @given(conversations())
    def check(made):
        assert answers(build, made) == [m.content for m in made.messages if m.role == "assistant"]

    check()


@pytest.mark.parametrize("template", ["inst", "headers", "model_role"])
def test_the_spans_are_the_answers_without_the_white_space_that_is_trimmed(renderer, template):
    build = renderer(template)

    @given(conversations(system=template != "model_role"))
    def check(made):
        assert answers(build, made) == [m.content.strip() for m in made.messages if m.role == "assistant"]

    check()


def test_the_span_is_not_that_of_an_equal_text_before_or_behind(renderer):
    @given(st.sampled_from(["a", "user", "assistant", "im_end", "<|im_start|>"]), st.data())
    def check(word, data):
        build = renderer("chatml")
        made = turns(word, word, word, word)
        rendering = build.render(made)
        turn = f"<|im_start|>{{}}\n{word}<|im_end|>\n"
        first = len(turn.format("user")) + len("<|im_start|>assistant\n")
        second = first + len(turn.format("user")) + len(turn.format("assistant"))
        assert rendering.answers == ((first, first + len(word)), (second, second + len(word)))

    check()


@pytest.mark.parametrize("template", ["chatml", "think", "inst"])
def test_last_assistant_trains_the_last_answer_only(renderer, template):
    made = turns("a", "b", "a", "b")
    every, last = renderer(template).render(made), renderer(template, "last_assistant").render(made)
    assert last.text == every.text
    assert last.answers == every.answers[-1:]


def test_an_inserted_think_block_is_not_part_of_the_answer(renderer):
    build = renderer("think")
    made = turns("q", "one", "q", "two")
    assert build.render(made).text.endswith("<think>\n\n</think>\n\ntwo<|im_end|>\n")
    assert answers(build, made) == ["one", "two"]


def test_the_think_block_of_an_answer_is_learned_where_the_template_writes_it(renderer):
    thought = "<think>\nhm\n</think>\n\n"
    made = turns("q", f"{thought}one", "q", f"{thought}two")
    assert answers(renderer("think"), made) == ["one", f"{thought}two"]


# The template takes the line break away and writes one of its own in the same place.
@pytest.mark.parametrize(("answer", "span"), [("\na", "a"), ("\na ", "a "), ("\n a", " a")])
def test_white_space_of_the_template_is_not_taken_for_the_answers_own(renderer, answer, span):
    assert answers(renderer("think"), turns("q", answer)) == [span]


def test_a_rewritten_think_block_is_refused(renderer):
    with pytest.raises(RecordError, match="does not show where the answer is"):
        renderer("think").render(turns("q", "<think>hm</think>two"))


def test_an_answer_that_is_nothing_but_a_think_block_is_refused_where_the_template_drops_it(renderer):
    with pytest.raises(RecordError, match="does not show where the answer is"):
        renderer("think").render(turns("q", "<think>\nhm\n</think>\n\n", "q", "two"))


@pytest.mark.parametrize("template", ["upper_case", "no_answer"])
def test_a_template_that_does_not_write_the_answer_is_refused_with_both_texts(renderer, template):
    with pytest.raises(RecordError) as refused:
        renderer(template).render(turns("the question", "the reply"))
    assert "the answer:          'the reply'" in str(refused.value)
    assert "the template's text: '<|im_start|>user\\nthe question" in str(refused.value)


# Equal to the prompt, part of it, and part of the template: each stands in the text, none as the answer.
@pytest.mark.parametrize("answer", ["the question", "question", "assistant", "<|im_end|>\n"])
def test_a_template_that_ignores_the_answer_is_refused_although_its_words_are_there(renderer, answer):
    with pytest.raises(RecordError, match="does not show where the answer is"):
        renderer("no_answer").render(turns("the question", answer))


def test_what_the_template_itself_refuses_is_a_record_error(renderer):
    with pytest.raises(RecordError, match="System role not supported"):
        renderer("model_role").render(conversation(Message("system", "s"), *turns("q", "a").messages))
    with pytest.raises(RecordError, match="must alternate"):
        renderer("inst").render(conversation(Message("user", "q"), *turns("q", "a").messages))


def test_a_long_text_is_shown_by_its_ends(renderer):
    with pytest.raises(RecordError) as refused:
        renderer("upper_case").render(turns("q", "x" * 3000))
    assert len(str(refused.value)) < 1500


def test_a_tokenizer_without_template_renders_chatml(renderer):
    expected = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert renderer(None).render(turns("q", "a")).text == expected
    assert renderer("inst", chat_template="chatml").render(turns("q", "a")).text == expected


def test_where_chatml_has_no_end_mark_the_end_of_text_token_ends_each_turn(renderer):
    text = renderer("gpt2").render(turns("q", "a", "q", "b")).text
    assert text.count("<|endoftext|>") == 4
    assert text.endswith("assistant\nb<|endoftext|>\n")


def test_a_template_file_takes_the_place_of_the_tokenizers_own(renderer, tmp_path):
    path = tmp_path / "own.jinja"
    marked = "{%- generation -%}{{ message.content }}<|im_end|>{%- endgeneration -%}"
    path.write_text("{% for message in messages %}{{ message.role }}>" + marked + "{% endfor %}", encoding="utf-8")
    assert (
        renderer("inst", chat_template=str(path)).render(turns("q", "a")).text
        == "user>q<|im_end|>assistant>a<|im_end|>"
    )


def test_a_broken_template_file_is_named_with_its_line(tokenizer_dir, tmp_path):
    path = tmp_path / "broken.jinja"
    path.write_text("{{ bos_token }}\n{% for message in %}", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.jinja:2: "):
        load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml")), chat_template=str(path)))
    with pytest.raises(UserError, match=r"missing\.jinja cannot be read"):
        load_tokenizer(ModelConfig(path=str(tokenizer_dir("chatml")), chat_template=str(tmp_path / "missing.jinja")))


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match="no tokenizer can be loaded from"):
        load_tokenizer(ModelConfig(path=str(tmp_path)))
    with pytest.raises(UserError, match="there is no folder"):
        load_tokenizer(ModelConfig(path=str(tmp_path / "absent")))
