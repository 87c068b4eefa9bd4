"""Where a user's words stand is found in every template that marks it, and refused in the others."""

import re
from pathlib import Path

import pytest

from sft.config import ModelConfig
from sft.data.rendering.chat_template import TemplateRenderer, control_ids, load_tokenizer
from sft.data.rendering.turn_bounds import any_of
from sft.data.rendering.user_turns import UserTurn, find_user_turn
from sft.errors import RecordError
from sft.schema import Message
from tests.conftest import TEMPLATES, write_tokenizer

FOUND = {
    "chatml": UserTurn("<|im_start|>user\n", "<|im_end|>"),
    "headers": UserTurn("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    "mistral": UserTurn("<s>[INST]", "[/INST]"),
    "model_role": UserTurn("<bos><start_of_turn>user\n", "<end_of_turn>"),
    "phi": UserTurn("<|user|>\n", "<|end|>"),
}
REFUSED = {"inst": "does not end a user's words", "no_stop_token": "does not end a user's words"}
NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def find(folder: Path, name: str, source: str | None = None, *before: Message) -> UserTurn:
    write_tokenizer(folder, name)
    tokenizer = load_tokenizer(ModelConfig(path=str(folder)))
    tokenizer.chat_template = source or tokenizer.chat_template
    control = any_of(frozenset(map(str, tokenizer.convert_ids_to_tokens(control_ids(tokenizer)))))
    render = TemplateRenderer(tokenizer)
    turn = find_user_turn(render, before, control, str(tokenizer.bos_token or ""))
    text = render((*before, Message("user", "Why is that so?")))
    assert re.search(re.escape(turn.header) + r" ?Why is that so\?\s*" + re.escape(turn.end), text)
    return turn


@pytest.mark.parametrize("name", NAMES)
def test_the_header_and_the_end_are_those_of_the_template_or_it_is_refused(name: str, tmp_path: Path) -> None:
    if name in REFUSED:
        with pytest.raises(RecordError, match=REFUSED[name]):
            find(tmp_path, name)
    else:
        turn = find(tmp_path, name)
        assert turn == FOUND.get(name, turn)


def test_earlier_turns_stand_in_the_header(tmp_path: Path) -> None:
    turn = find(tmp_path, "chatml", None, Message("system", "Be short."))
    assert turn.header == "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", "does not mark where a user's words begin"),
        ("{% for m in messages %}<|im_start|>\n{{ m.content }}<|im_end|>{% endfor %}", "does not mark where"),
        ("{% for m in messages %}U{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}", "once, as they are"),
        ("{% for m in messages %}U{{ m.content | upper }}<|im_end|>{% endfor %}", "once, as they are"),
        ("{% for m in messages %}{{ m.content | length }}{{ m.content }}<|im_end|>{% endfor %}", "does not mark where"),
        ("{{ raise_exception('none of that') }}", "none of that"),
    ],
)
def test_a_template_that_does_not_mark_them_is_refused(source: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=part):
        find(tmp_path, "chatml", source)
