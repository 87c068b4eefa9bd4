"""The tokenizer of a run and the chat template that goes with it.

The template is the one that the config names, else the tokenizer's own, else ChatML. Where ChatML's end mark is
not in the vocabulary (GPT-2), the tokenizer's end-of-text token ends each turn, so that the model learns to stop
with one token.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sft.config import ModelConfig
from sft.data.formatting import RecordError
from sft.data.rendering import RenderTemplate
from sft.errors import UserError
from sft.schema import Message

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + END + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, with the chat template of the run set on it.

    Raises:
        UserError: there is none at the path, or it cannot tell which characters a token stands for.
    """
    path = model.tokenizer or model.path
    folder = Path(path).expanduser()
    if not folder.is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise UserError(f"model: there is no folder {folder}. Correct model.path, or name a Hub id.")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else path, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model: no tokenizer can be loaded from {path}: {reason}") from error
    if not tokenizer.is_fast:
        raise UserError(f"model: the tokenizer of {path} gives no character offsets; needed: one with a tokenizer.json")
    tokenizer.chat_template = _choose_template(model, tokenizer)
    return cast(PreTrainedTokenizerBase, tokenizer)


def build_template_renderer(tokenizer: PreTrainedTokenizerBase) -> RenderTemplate:
    """A function from messages to the text that the tokenizer's chat template makes of them."""

    def render(messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(tokenizer.apply_chat_template(turns, tokenize=False))
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise RecordError(f"the chat template refuses the conversation: {error}") from error

    return render


def _choose_template(model: ModelConfig, tokenizer: Any) -> str:
    if model.chat_template == "chatml" or (model.chat_template is None and not tokenizer.chat_template):
        return _chatml(tokenizer)
    if model.chat_template is None:
        if isinstance(tokenizer.chat_template, dict):  # several templates by name
            return str(tokenizer.chat_template["default"])
        return str(tokenizer.chat_template)
    path = Path(model.chat_template).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_without_generation_marks(text))
    except OSError as error:
        raise UserError(f"model.chat_template: {path} cannot be read: {error.strerror}") from None
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"model.chat_template: {path}:{error.lineno}: {error.message}") from None
    return text


def _without_generation_marks(text: str) -> str:
    """The template without the two tags that only the tokenizer's own environment knows."""
    return re.sub(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}", "", text)


def _chatml(tokenizer: Any) -> str:
    end = "<|im_end|>" if "<|im_end|>" in tokenizer.get_vocab() else tokenizer.eos_token
    if end is None:
        raise UserError("model: the tokenizer has neither a chat template nor an end-of-text token; give one of them")
    return _CHATML.replace("END", repr(end))
