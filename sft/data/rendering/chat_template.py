"""The tokenizer of a run and the chat template that goes with it.

The template is the one that the config names, else the tokenizer's own, else ChatML. If the vocabulary lacks ChatML's
end mark (GPT-2), the tokenizer's end-of-text token ends each turn, so the model learns to stop with one token.

A template may ask for today's date. It always gets the same one: the text is a function of the conversation, so a store
made tomorrow equals the one made today.
"""

import re
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import jinja2
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sft.absolute_paths import near_it
from sft.config import ModelConfig
from sft.data.rendering.bounded_template import compile_template
from sft.data.rendering.turn_form import derive_turn_form, template_turn
from sft.errors import RecordError, UserError
from sft.schema import JsonObject, Message
from sft.small_files import read_small_text

TEMPLATE_DATE = datetime(2024, 7, 26)
"""The date that every template gets. Llama 3.1's template writes this date where none is given."""

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + END + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_MAX_REASON_CHARS = 500
_MOST_TURNS = 512

# What a template's own code may raise: `raise_exception`, and Python's errors about a wrong type, key or number.
REFUSALS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Errors that the code of a template raises on a conversation that it was not written for."""

RAISED_BY_CODE = (Exception, SystemExit)
"""Errors that transformers, and the code that comes with a model or a tokenizer, raise on files that they were not
written for: such code may raise anything."""


def template_name(model: ModelConfig) -> str:
    """The name of the run's template in messages."""
    if model.chat_template in (None, "chatml"):
        return f"the chat template of {model.tokenizer or model.path}"
    return f"model.chat_template: {model.chat_template}"


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, with the chat template of the run set on it.

    Raises:
        UserError: there is none at the path, or it cannot map tokens to characters.
    """
    tokenizer: Any = load_own_tokenizer(model)
    tokenizer.chat_template = _choose_template(model, tokenizer)
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_own_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat template that came with it, if one did.

    Raises:
        UserError: as `load_tokenizer`.
    """
    path = model.tokenizer or model.path
    trusted, field = model.trust_remote_code, "trust_remote_code"
    if model.tokenizer is not None:
        trusted, field = model.trust_tokenizer_code, "trust_tokenizer_code"
    folder = Path(path).expanduser()
    if not folder.is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        field = "path" if model.tokenizer is None else "tokenizer"
        raise UserError(
            f"model: there is no folder {folder}{near_it(folder)}. Correct model.{field}, or name a Hub id."
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else path, trust_remote_code=trusted
        )
    except RAISED_BY_CODE as error:
        reason = loading_reason(error, field)
        raise UserError(f"model: no tokenizer can be loaded from {path}: {reason}") from error
    if not tokenizer.is_fast:
        raise UserError(f"model: the tokenizer of {path} gives no character offsets; needed: one with a tokenizer.json")
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.added_tokens_decoder):
        # transformers makes one without words where a folder has a config.json alone.
        raise UserError(f"model: no tokenizer is in {path}: name one that has words with model.tokenizer")
    return cast(PreTrainedTokenizerBase, tokenizer)


def loading_reason(error: BaseException, trust_field: str) -> str:
    """Why transformers did not load something. If it is code that may not run: with the field that allows it."""
    reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        return f"it comes with code of its own, which is not run. If you trust that code: model.{trust_field}=true"
    # The texts of these errors are sentences; a `KeyError` shows only the key.
    kind = "" if isinstance(error, OSError | ValueError | StrictDataclassError) else f"{type(error).__name__}: "
    return f"{kind}{reason}"[:300]


def control_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the tokens that are not text: those that begin and end turns, padding and the like."""
    backend: Any = tokenizer.backend_tokenizer
    added = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    return sorted(added | set(tokenizer.all_special_ids))


class TemplateRenderer:
    """A function from messages and tools to the text of a tokenizer's chat template.

    The text equals that of `tokenizer.apply_chat_template` for the messages in the template's form, except for the
    date. The compiled template is called directly: `apply_chat_template` spends most of its time copying plain data.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> None:
        """Finds out which form of messages the template is written for.

        Args:
            tokenizer: its chat template is set.
            name: the name of the template in messages. Default: that of the tokenizer.

        Raises:
            UserError: the template cannot be compiled.
        """
        self.source = str(tokenizer.chat_template)
        name = name or f"the chat template of {tokenizer.name_or_path}"
        self._render_bounded = compile_template(self.source, name)
        self._context = {**tokenizer.special_tokens_map, "documents": None, "strftime_now": TEMPLATE_DATE.strftime}
        self.form = derive_turn_form(self._render)
        self._turns: dict[int, tuple[Message, JsonObject]] = {}

    def __call__(
        self, messages: Sequence[Message], tools: Sequence[JsonObject] = (), *, for_generation: bool = False
    ) -> str:
        """The text; `for_generation`: with the template's generation prompt at its end.

        Raises:
            RecordError: the template refuses the conversation.
            UserError: it does not end.
        """
        return self._render([self._turn(message) for message in messages], tools, for_generation)

    def _turn(self, message: Message) -> JsonObject:
        """A conversation is rendered many times, up to each of its answers; no template may change a turn."""
        known = self._turns.get(id(message))
        if known is None or known[0] is not message:
            if len(self._turns) >= _MOST_TURNS:
                self._turns.clear()
            known = self._turns[id(message)] = message, template_turn(message, self.form)
        return known[1]

    def _render(self, turns: Sequence[JsonObject], tools: Sequence[JsonObject], for_generation: bool = False) -> str:
        told = {
            **self._context,
            "messages": list(turns),
            "tools": [dict(tool) for tool in tools] or None,
            "add_generation_prompt": for_generation,
        }
        try:
            return self._render_bounded(told)
        except UserError:
            raise
        except REFUSALS as error:
            reason = refusal_reason(error)[:_MAX_REASON_CHARS]
            raise RecordError(f"the chat template refuses the conversation: {reason}") from error


def refusal_reason(error: Exception) -> str:
    """Why a template refuses a conversation: its own words, or what is missing and where, and what to do."""
    if type(error) is jinja2.TemplateError:
        return " ".join(str(error).split())  # the template's own words, from `raise_exception`
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    where = f"line {lines[-1]} of the template" if lines else "the template"
    if isinstance(error, jinja2.UndefinedError):
        return (
            f"{where} needs what the conversation does not give: {error}. A template gets messages, tools, "
            "add_generation_prompt and the special tokens. Choose another with model.chat_template."
        )
    if isinstance(error, jinja2.exceptions.SecurityError):
        done = str(error).rstrip(".")
        return f"{where} does what a template may not do: {done}. Choose another with model.chat_template."
    return (
        f"{where} cannot write it ({type(error).__name__}: {error}): it is written for another form of messages. "
        "Choose another with model.chat_template."
    )


def _choose_template(model: ModelConfig, tokenizer: Any) -> str:
    if model.chat_template == "chatml" or (model.chat_template is None and not tokenizer.chat_template):
        return _chatml(tokenizer)
    if model.chat_template is None:
        return _only_template(tokenizer.chat_template)
    path = Path(model.chat_template).expanduser()
    text = read_small_text(path, "model.chat_template")
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(without_generation_marks(text))
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"model.chat_template: {path}:{error.lineno}: {error.message}") from None
    except RecursionError:
        raise UserError(f"model.chat_template: {path} is nested too deeply") from None
    return text


def _only_template(templates: str | dict[str, str]) -> str:
    """A run has one template: of several named ones the default, whether a conversation has tools or not."""
    if isinstance(templates, str):
        return templates
    if "default" not in templates:
        there = ", ".join(sorted(templates))
        raise UserError(
            f"model: the tokenizer has several chat templates ({there}) and none is called default. "
            "Write the one to use to a file and name it with model.chat_template."
        )
    return templates["default"]


def without_generation_marks(text: str) -> str:
    """The template without the two tags that only the tokenizer's own environment knows."""
    return re.sub(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}", "", text)


def _chatml(tokenizer: Any) -> str:
    end = "<|im_end|>" if "<|im_end|>" in tokenizer.get_vocab() else tokenizer.eos_token
    if end is None:
        raise UserError(
            "model: the tokenizer has neither a chat template nor an end-of-text token; needed: one of them"
        )
    return _CHATML.replace("END", repr(end))
