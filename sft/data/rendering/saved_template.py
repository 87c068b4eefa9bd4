"""The chat template that is saved with a tuned model: anyone who passes it tools gets the prompt that was trained.

In training, `adaptation` and `turn_form` rewrite what a template has no form for before a conversation is rendered. The
saved template does so by itself: a prelude (`tools_prelude.j2`) before the template rewrites `messages` and removes
`tools`; the template itself follows unchanged. A template that has a list of tools, tool calls and a system turn is
saved without a prelude. The saved template has all three, so using it and saving it again changes nothing.
"""

import json
from functools import cache
from importlib.resources import files

from transformers import PreTrainedTokenizerBase

from sft.data.rendering.adaptation import BEFORE_TOOLS, END_OF_TOOLS, HOW_TO_CALL, derive_traits
from sft.data.rendering.chat_template import TemplateRenderer
from sft.schema import THOUGHT_END, THOUGHT_START


def saved_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template, with a prelude for what it has no form for.

    Several calls in a turn, and ids of calls, are left to the template, which then has its own form for calls.

    Raises:
        UserError: the template cannot be compiled, or does not end.
    """
    render_template = TemplateRenderer(tokenizer)
    traits, form = derive_traits(render_template), render_template.form
    if traits.has_system and traits.has_tool_list and traits.has_tool_calls:
        return render_template.source
    settings = {
        "lists_tools": not traits.has_tool_list,
        "before_tools": BEFORE_TOOLS,
        "behind_tools": END_OF_TOOLS if traits.has_tool_calls else END_OF_TOOLS + HOW_TO_CALL,
        "writes_calls": not traits.has_tool_calls,
        "writes_thoughts": form.thoughts in ("text", "opened_text"),
        "before_thought": "" if form.thoughts == "opened_text" else THOUGHT_START,
        "behind_thought": THOUGHT_END,
        "moves_system": not traits.has_system,
    }
    # Jinja reads JSON's strings, and its true and false.
    written = ",".join(f"\n    {name}={json.dumps(value)}" for name, value in settings.items())
    return _prelude().replace("SETTINGS", f"{written}\n") + render_template.source


@cache
def _prelude() -> str:
    """Its last line ends in a line break, which Jinja drops behind a tag: the template begins on a line of its own."""
    return files(__package__).joinpath("tools_prelude.j2").read_text(encoding="utf-8")
