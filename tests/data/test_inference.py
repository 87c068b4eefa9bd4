"""At which tokens a model stops, and what is put behind answers that its template does not end."""

import json

import pytest
from transformers import AutoTokenizer

from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.rendering.inference import generation_stops
from sft.errors import RecordError, UserError
from sft.schema import Example, Record, RecordLocation

SOURCE = SourceConfig(name="s", path="s.jsonl", format="prompt_completion", task="t")
ALPACA = "{% for m in messages %}{{ '### ' + m.role + '\n' + m.content + '\n\n' }}{% endfor %}"


@pytest.fixture
def folder(tokenizer_dir, tmp_path):
    """A function that writes a tokenizer with a template that ends no answer, and a generation config."""

    def write(stops=None, template=ALPACA):
        tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir("chatml")))
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path)
        if stops is not None:
            ids = tokenizer.convert_tokens_to_ids(stops)
            (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
        return tmp_path

    return write


def learned(model, **data):
    pipeline = RecordPipeline(DataConfig(sources=(SOURCE,), **data), model)
    record = Record("s", 0, RecordLocation("s.jsonl", 1), {"prompt": "one", "completion": "river bell"})
    rendered = pipeline.render(pipeline.format(record, SOURCE))
    (example,) = pipeline.tokenizer.tokenize(rendered.renderings)
    assert isinstance(example, Example)
    tokenizer = load_tokenizer(model)
    return tokenizer.decode(example.input_ids[example.loss_mask]), tokenizer.decode(example.input_ids)


def test_a_model_stops_where_its_tokenizer_and_its_generation_config_say(folder):
    path = folder(["<|eot_id|>", "<|im_end|>"])
    tokenizer = load_tokenizer(ModelConfig(path=str(path)))
    assert generation_stops(ModelConfig(path=str(path)), tokenizer) == (tokenizer.eos_token, "<|eot_id|>")
    elsewhere = ModelConfig(path="owner/model", tokenizer=str(path))
    assert generation_stops(elsewhere, tokenizer) == (tokenizer.eos_token,)


def test_an_answer_without_an_end_is_refused_unless_one_is_asked_for(folder):
    path = str(folder())
    with pytest.raises(RecordError, match="model.turn_end=auto"):
        learned(ModelConfig(path=path))
    text, whole = learned(ModelConfig(path=path, turn_end="auto"))
    assert text == "river bell<|im_end|>"
    assert whole == "### user\none\n\n### assistant\nriver bell<|im_end|>\n\n"
    assert learned(ModelConfig(path=path, turn_end="<|eot_id|>"))[0] == "river bell<|eot_id|>"


def test_a_template_that_ends_its_answers_is_left_as_it_is(tokenizer_dir):
    model = ModelConfig(path=str(tokenizer_dir("chatml")), turn_end="<|eot_id|>")
    assert learned(model)[0] == "river bell<|im_end|>"


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
    "{{ m.reasoning_content + '<|eot_id|>' }}{% endif %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def notes_of(model, fields):
    source = SourceConfig(name="s", path="s.jsonl", format="messages", task="t")
    pipeline = RecordPipeline(DataConfig(sources=(source,)), model)
    rendered = pipeline.render(pipeline.format(Record("s", 0, RecordLocation("s.jsonl", 1), fields), source))
    return [note for rendering in rendered.renderings for note in rendering.notes]


def test_an_end_at_which_the_model_does_not_stop_yet_is_noted(folder):
    path = folder(template=CHATML)
    record = {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "river bell"}]}
    assert not notes_of(ModelConfig(path=str(path)), record)
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    tokenizer.eos_token = "<|eot_id|>"
    tokenizer.save_pretrained(path)
    (note,) = notes_of(ModelConfig(path=str(path)), record)
    assert note.startswith("the chat template ends an answer in <|im_end|>, at which the model does not stop yet")


def test_an_end_of_answers_is_an_end_inside_a_turn_that_ends_otherwise_too(folder):
    """The tuned model stops at whatever has ended one of its answers."""
    call = {"function": {"name": "look_up", "arguments": {"word": "bell"}}}
    calls = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    text = CHATML.replace("'<|eot_id|>'", "'<|im_end|><|im_start|>assistant\n'").replace(
        "m.content + '<|im_end|>'",
        "(m.tool_calls | map(attribute='function') | list | tojson + '<|eot_id|>') if m.tool_calls else "
        "(m.content + '<|im_end|>')",
    )
    path = folder(template=text)
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    tokenizer.eos_token = "<|eot_id|>"
    tokenizer.save_pretrained(path)
    question = {"role": "user", "content": "one"}
    notes_of(ModelConfig(path=str(path)), {"messages": [question, {**calls, "reasoning_content": ""}]})
    with pytest.raises(RecordError, match=r"writes <\|im_end\|> inside the answer, at which the model would stop"):
        notes_of(ModelConfig(path=str(path)), {"messages": [question, calls]})


def test_a_template_that_refuses_calls_says_why_they_are_written_as_text(folder):
    text = CHATML.replace("{% for", "{% set ids = [] %}{% for", 1).replace(
        "{% if m.reasoning", "{% if m.tool_calls %}{% set _ = ids.append(1) %}{% endif %}{% if m.reasoning", 1
    )
    call = {"function": {"name": "look_up", "arguments": {"word": "bell"}}}
    question, calls = {"role": "user", "content": "one"}, {"role": "assistant", "content": None, "tool_calls": [call]}
    notes = notes_of(ModelConfig(path=str(folder(template=text))), {"messages": [question, calls]})
    assert notes[0].startswith("the chat template has no tool calls")
    assert "line 2 of the template does what a template may not do: access to attribute 'append'" in notes[1]


def test_an_end_is_a_token_that_is_there(folder):
    with pytest.raises(UserError, match=r"'\[end\]' is not a control token of the tokenizer. Needed: auto, or one of"):
        learned(ModelConfig(path=str(folder()), turn_end="[end]"))
    (folder() / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json cannot be read"):
        learned(ModelConfig(path=str(folder())))


def test_the_end_and_the_stops_are_in_the_fingerprint(folder):
    path = str(folder())
    models = [ModelConfig(path=path, turn_end=end) for end in (None, "auto", "<|eot_id|>")]
    prints = [RecordPipeline(DataConfig(sources=(SOURCE,)), model).fingerprint for model in models]
    assert len(set(prints)) == 3
    folder(["<|eot_id|>"])
    assert RecordPipeline(DataConfig(sources=(SOURCE,)), models[0]).fingerprint not in prints


REFUSED = {
    "needs what the conversation does not give: 'functions' is undefined": "{{ functions.name }}",
    r"line 2 of the template cannot write it \(TypeError: 'NoneType' object is not iterable\)": "\n{% for t in tools %}"
    "{% endfor %}",
    "the chat template refuses the conversation: no such thing": "{{ raise_exception('no such\nthing') }}",
    "does what a template may not do": "{{ messages.append(1) }}",
}


@pytest.mark.parametrize("said", REFUSED)
def test_a_refusal_says_what_the_template_lacks_where_and_the_way_out(folder, said):
    with pytest.raises(RecordError, match=said) as refused:
        learned(ModelConfig(path=str(folder(template=REFUSED[said]))))
    assert "\n" not in str(refused.value)
    assert "raise_exception" in REFUSED[said] or "model.chat_template" in str(refused.value)


def test_a_template_of_the_tokenizer_that_is_no_jinja_is_named_with_its_line(folder):
    path = folder(template="{{ bos_token }}\n{% for m in %}")
    with pytest.raises(UserError, match=rf"the chat template of {path}: line 2: "):
        learned(ModelConfig(path=str(path)))
