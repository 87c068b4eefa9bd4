"""What transformers' own `apply_chat_template` writes for a conversation, with the date that the rows were given."""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from sft.data.rendering.chat_template import TEMPLATE_DATE
from sft.data.rendering.turn_form import TurnForm, template_turn
from sft.schema import JsonObject, Message


class TemplateTexts:
    """The tokenizer's own renderings, with the date that the store's rows were given."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: TurnForm) -> None:
        self._tokenizer: Any = tokenizer
        self._template = _with_fixed_date(str(tokenizer.chat_template))
        self._form = form

    def write(self, messages: Sequence[Message], tools: Sequence[JsonObject], for_generation: bool = False) -> str:
        """The text; a template is a program, and may raise anything."""
        turns = [template_turn(message, self._form) for message in messages]
        told: dict[str, Any] = {
            "tools": [dict(tool) for tool in tools] or None,
            "add_generation_prompt": for_generation,
        }
        if any(turn["content"] is None for turn in turns):
            # `apply_chat_template` drops null values, and templates that ask for them then fail.
            special = self._tokenizer.special_tokens_map
            return str(
                _compile_jinja_template(self._template).render(messages=turns, documents=None, **told, **special)
            )
        own = {"tokenize": False, "chat_template": self._template}
        return str(self._tokenizer.apply_chat_template(turns, **told, **own))

    def try_to_write(
        self, messages: Sequence[Message], tools: Sequence[JsonObject], for_generation: bool = False
    ) -> str | None:
        """The text; None where the template refuses."""
        try:
            return self.write(messages, tools, for_generation)
        except Exception:
            return None


def _with_fixed_date(template: str) -> str:
    """The template with the date that the store's rows were given, whatever the current date."""
    formats = {found[1] for found in re.findall(r"strftime_now\(\s*(['\"])(.*?)\1", template)}
    days = ", ".join(f"{form!r}: {TEMPLATE_DATE.strftime(form)!r}" for form in sorted(formats))
    # A macro replaces the function of this name. The plus keeps a line break that the template begins with.
    macro = "{% macro strftime_now(form) %}{{ {DAYS}[form] }}{% endmacro +%}".replace("DAYS", days)
    return macro + template if formats else template
