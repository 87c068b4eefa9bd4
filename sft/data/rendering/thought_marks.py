"""How a template marks thoughts, found by what a model has to write for an answer with a thought and one without.

    learned    ⟦[THINK]probethought[/THINK]probeanswer</s>⟧     ⟦probeanswer</s>⟧
    marks        ─start─            ──end──

Nothing is guessed: where the two do not show what stands before a thought and what behind it, there are no marks.
"""

import re

from sft.data.rendering.adaptation import RenderTemplate
from sft.data.rendering.answer_spans import find_answer
from sft.data.rendering.turn_bounds import TurnBounds, num_common
from sft.data.rendering.turn_form import TurnForm
from sft.errors import RecordError
from sft.schema import Message, ToolCall
from sft.thoughts import USUAL, Marks

_ASKED, _THOUGHT, _ANSWER = "probequestion", "probethought", "probeanswer"


def derive_marks(render_template: RenderTemplate, form: TurnForm, bounds: TurnBounds) -> Marks | None:
    """The marks of the template; None where it writes thoughts and does not show where they begin and end.

    Args:
        render_template: the template.
        form: in which it reads thoughts. Those that are part of the content have the usual marks.
        bounds: where its turns begin and end.
    """
    asked, written = _written(render_template, bounds, Message("assistant", _ANSWER))
    in_front = written.partition(_ANSWER)[0]
    if form.thoughts not in ("field", "parts"):
        return _marks(USUAL.start, USUAL.end, in_front)
    opened, written = _written(render_template, bounds, Message("assistant", _ANSWER, thought=_THOUGHT))
    if [written.count(words) for words in (_THOUGHT, _ANSWER)] != [1, 1]:
        return None
    start, _, behind = written.partition(_THOUGHT)
    end, is_in_order, _ = behind.partition(_ANSWER)
    if not start.strip():
        start = _opening(opened, asked + in_front, bounds.control)
    if not is_in_order or not start.strip() or not end.strip():
        return None
    marks = _marks(start, end, in_front)
    return marks._replace(end_at_call=_end_at_call(render_template, bounds, marks))


def _end_at_call(render_template: RenderTemplate, bounds: TurnBounds, marks: Marks) -> str:
    """What ends a thought in front of a call, if that is something else: what a call alone does not begin with."""
    call = ToolCall("probecall", {"probekey": "probevalue"}, "000000001")
    thinking = _written(render_template, bounds, Message("assistant", "", tool_calls=(call,), thought=_THOUGHT))[1]
    alone = _written(render_template, bounds, Message("assistant", "", tool_calls=(call,)))[1].partition(call.name)[0]
    end = thinking.partition(_THOUGHT)[2].partition(call.name)[0]
    same = num_common(end[::-1], alone[::-1])
    return "" if marks.end in end else end[: len(end) - same].strip()


def _written(render_template: RenderTemplate, bounds: TurnBounds, message: Message) -> tuple[str, str]:
    """The text between a question and what a model writes to answer it, and what it writes; empty if it is refused."""
    try:
        text, (start, stop), _ = find_answer(render_template, bounds, (Message("user", _ASKED), message), ())
    except RecordError:
        return "", ""
    return text[:start].partition(_ASKED)[2], text[start:stop]


def _opening(opened: str, plain: str, control: re.Pattern[str]) -> str:
    """The mark at the end of a prompt: what does not stand before an answer without a thought; it cuts no token."""
    if opened.rstrip().endswith(USUAL.start):
        return USUAL.start
    end = num_common(opened, plain)
    cut = (token.start() for token in control.finditer(opened) if token.start() < end < token.end())
    return opened[next(cut, end) :]


def _marks(start: str, end: str, in_front: str) -> Marks:
    """An empty thought in front of every plain answer is read as a thought."""
    start, end, in_front = start.strip(), end.strip(), in_front.strip()
    return Marks(start, end, "" if in_front.startswith(start) else in_front)
