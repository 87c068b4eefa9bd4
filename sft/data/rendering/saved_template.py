"""The chat template that is saved with a tuned model: whoever gives it tools gets the prompt that was trained.

What a template has no form for, `adaptation` and `turn_form` say otherwise before a conversation is rendered. The saved
template does so by itself. A prelude (`tools_prelude.j2`) is put in front of it, which rewrites `messages` and takes
`tools` away; the template follows as it was. One that has a list of tools, tool calls and a system turn is saved
without. The saved template has all three, so it is used again, and saved again, as it is.
"""

import json
from functools import cache
from importlib.resources import files

from transformers import PreTrainedTokenizerBase

from sft.data.rendering.adaptation import BEFORE_TOOLS, BEHIND_TOOLS, derive_traits
from sft.data.rendering.chat_template import TemplateRenderer
from sft.schema import THOUGHT_END, THOUGHT_START


def saved_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template, with a prelude for what it has no form for.

    Several calls in a turn, and ids of calls, are left to the template, which has its own form for calls then.

    Raises:
        UserError: the template cannot be compiled, or goes on without end.
    """
    render_template = TemplateRenderer(tokenizer)
    traits, form = derive_traits(render_template), render_template.form
    if traits.has_system and traits.has_tool_list and traits.has_tool_calls:
        return render_template.source
    settings = {
        "lists_tools": not traits.has_tool_list,
        "before_tools": BEFORE_TOOLS,
        "behind_tools": BEHIND_TOOLS,
        "writes_calls": not traits.has_tool_calls,
        "writes_thoughts": form.thoughts in ("text", "opened_text"),
        "before_thought": "" if form.thoughts == "opened_text" else THOUGHT_START,
        "behind_thought": THOUGHT_END,
        "moves_system": not traits.has_system,
    }
    # Jinja reads JSON's texts and its true and false.
    written = ",".join(f"\n    {name}={json.dumps(value)}" for name, value in settings.items())
    return _prelude().replace("SETTINGS", f"{written}\n") + render_template.source


@cache
def _prelude() -> str:
    """Its last line ends in a line break, which Jinja drops behind a tag: the template begins on a line of its own."""
    return files(__package__).joinpath("tools_prelude.j2").read_text(encoding="utf-8")
