"""Where an answer begins and ends in the text of a chat template, as a model meets it at inference.

    begins   where the generation prompt ends, which the template itself writes before an answer
    ends     behind the control tokens with which the template ends the turn: all of them, and no token of the next turn

The model has to write what is between the two. What all answers have in common is found once, by probes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from sft.data.rendering.adaptation import RenderTemplate
from sft.errors import RecordError
from sft.schema import Message, ToolCall

MARKS = range(0xE000, 0xF900)
"""Private-use characters, which no template searches for: probes are made of them."""


@dataclass(frozen=True, slots=True)
class TurnBounds:
    """What holds for the turns of every conversation of one template."""

    control: re.Pattern[str]
    """Finds the control tokens of the tokenizer in a text; longer ones first."""
    header: str | None = None
    """The text before an answer if the generation prompt does not show it; None where the template writes a prompt."""
    final_text: str = ""
    """What the template writes behind the end of a conversation's last turn, without surrounding white space."""
    inner: frozenset[str] = frozenset()
    """Control tokens inside a turn of several calls that do not end it: a turn that ends in one of them has no end."""
    ends_turns: bool = True
    """Whether the template writes a control token behind an answer of text that ends the conversation."""
    stop_tokens: frozenset[str] = frozenset()
    """Tokens that end the model's generation, according to the files that came with it."""
    turn_end: str | None = None
    """The text put behind an answer where the template does not end it."""
    new_stop: str | None = None
    """The token that ends an answer of text but does not stop the model yet: training teaches it to stop there."""

    def find_start(self, text: str, prompt: str) -> int | None:
        """Where the answer that `text` shows begins; None where `text` does not begin with the prompt.

        White space may differ between the two: some templates write other white space before some answers.
        """
        start = find_prompt_end(text, prompt)
        if start is None or not self.header:
            return start
        begin = start + len(text[start:]) - len(text[start:].lstrip())
        return begin + len(self.header) if text.startswith(self.header, begin) else None

    def find_end(self, text: str, start: int) -> int | None:
        """Where the last turn of `text` ends: behind the control tokens at its end, or the first stop token of them.

        None where there are none. The answer begins at `start`; only white space stands behind and between them.
        """
        behind = len(text.rstrip())
        if self.final_text and text.endswith(self.final_text, start, behind):
            behind -= len(self.final_text)
        run: list[re.Match[str]] = []
        for token in reversed(list(self.control.finditer(text, start, behind))):
            if text[token.end() : behind].strip():
                break
            run.insert(0, token)
            behind = token.start()
        if not run or run[-1].group() in self.inner:
            return None
        return next((token.end() for token in run if token.group() in self.stop_tokens), run[-1].end())

    def stops_before(self, text: str, place: int) -> bool:
        """Whether a token that stops the model ends here."""
        return text.endswith(tuple(self.stop_tokens), 0, place)

    def put_end(self, text: str, words_end: int, following: str) -> tuple[str, int]:
        """`text`, which ends in an answer, with an end put behind its words; and the position of this end.

        If the conversation continues in `following` with a control token that stops the model, that token is the end.
        """
        assert self.turn_end is not None
        words_end = len(text[:words_end].rstrip())
        if following.startswith(text[:words_end]):
            opener = self.control.match(following, words_end + _num_spaces(following, words_end))
            if opener is not None and opener.group() in self.stop_tokens:
                return following[: opener.end()], opener.end()
        return text[:words_end] + self.turn_end + text[words_end:], words_end + len(self.turn_end)

    def find_stop_inside(self, text: str, start: int, end: int) -> str | None:
        """A control token that would stop the model before the end of the turn; None where there is none."""
        tokens = [token.group() for token in self.control.finditer(text, start, end)]
        stops = {*self.stop_tokens, self.new_stop, *tokens[-1:]}
        return next((token for token in tokens[:-1] if token in stops), None)


def derive_bounds(
    render_template: RenderTemplate,
    special_tokens: frozenset[str],
    stop_tokens: frozenset[str] = frozenset(),
    turn_end: str | None = None,
) -> TurnBounds:
    """Find out where turns begin and end, by rendering probes.

    Args:
        render_template: the template.
        special_tokens: the texts of all control tokens of the tokenizer.
        stop_tokens: those that end the model's generation.
        turn_end: what to put behind answers that the template does not end.
    """
    control = any_of(special_tokens)
    user, mark = Message("user", "probequestion"), chr(MARKS[0])
    answer = Message("assistant", f"{mark}probe{mark}")

    def text_of(*messages: Message, for_generation: bool = False) -> str | None:
        try:
            return render_template(messages, (), for_generation=for_generation)
        except RecordError:
            return None

    def behind(text: str | None) -> str:
        return (text or "").partition(answer.content)[2]

    alone, followed = text_of(user, answer), text_of(user, answer, user)
    prompt, bare = text_of(user, for_generation=True), text_of(user)
    header = None
    if prompt is not None and prompt == bare:
        call = Message("assistant", "", tool_calls=(ToolCall("probecall", {"probekey": "probevalue"}, "000000001"),))
        header = _common_lead(prompt, alone, text_of(user, call), answer.content, control)
    ends = _leading_tokens(behind(alone), control)
    own = _own_ends(ends, _leading_tokens(behind(followed), control), stop_tokens)
    if header is not None and alone is not None and not stop_tokens.intersection(own):
        # A template may always write a generation prompt, even behind an answer: that is not an end.
        opener = alone.partition(user.content)[2].partition(answer.content)[0]
        own = [] if behind(alone).strip() == opener.strip() else own
    # If the template refuses the probes, nothing is known: each text then shows whether the template ends an answer.
    ends_turns = bool(own) or alone is None
    tail = behind(alone)
    final_text = tail[_end_of(tail, own) :].strip()
    calls = tuple(ToolCall(f"probecall{i}", {"probekey": "probevalue"}, f"{i:09d}") for i in range(2))
    several = (text_of(user, Message("assistant", "", tool_calls=calls)) or "").partition(calls[0].name)[2].rstrip()
    tokens = control.findall(several.removesuffix(final_text))
    inner = frozenset(tokens[:-1]) - {*tokens[-1:], *stop_tokens}
    new_stop = own[-1] if own and stop_tokens and own[-1] not in stop_tokens else None
    return TurnBounds(control, header, final_text, inner, ends_turns, stop_tokens, turn_end, new_stop)


def _own_ends(ends: Sequence[str], followed: Sequence[str], stop_tokens: frozenset[str]) -> list[str]:
    """The control tokens behind an answer that ends the conversation, reduced to those that end the turn.

    They are those that are also there when another turn follows, up to the first one that stops the model. If there are
    none, all of them count: the template then writes its end only at the end of a conversation.
    """
    own = [end for end, _ in takewhile(lambda pair: pair[0] == pair[1], zip(ends, followed, strict=False))] or [*ends]
    stop = next((i for i, token in enumerate(own) if token in stop_tokens), len(own) - 1)
    return own[: stop + 1]


def _end_of(text: str, tokens: Sequence[str]) -> int:
    """Where the leading `tokens` of the text end."""
    at = 0
    for token in tokens:
        at = text.index(token, at) + len(token)
    return at


def any_of(texts: frozenset[str]) -> re.Pattern[str]:
    """A pattern that finds any of the texts, the longest first."""
    ordered = sorted(texts - {""}, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _leading_tokens(text: str, control: re.Pattern[str]) -> list[str]:
    """The control tokens that a text begins with, white space between them."""
    tokens: list[str] = []
    at = _num_spaces(text, 0)
    while found := control.match(text, at):
        tokens.append(found.group())
        at = found.end() + _num_spaces(text, found.end())
    return tokens


def find_prompt_end(text: str, prompt: str) -> int | None:
    """Where the prompt ends in a text that begins with it, up to white space; None where it does not."""
    if text.startswith(prompt):
        return len(prompt)
    at = in_prompt = num_common(text, prompt)
    while True:
        in_prompt += _num_spaces(prompt, in_prompt)
        if in_prompt == len(prompt):
            break
        at += _num_spaces(text, at)
        if at == len(text) or text[at] != prompt[in_prompt]:
            return None
        at, in_prompt = at + 1, in_prompt + 1
    at = len(text[:at].rstrip())
    return at + min(_num_spaces(text, at), len(prompt) - len(prompt.rstrip()))


def num_common(first: str, second: str) -> int:
    """The length of the common prefix of two texts, by halving: texts are long, comparing is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first.startswith(second[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def _num_spaces(text: str, at: int) -> int:
    end = at
    while end < len(text) and text[end].isspace():
        end += 1
    return end - at


def _common_lead(prompt: str, answered: str | None, called: str | None, words: str, control: re.Pattern[str]) -> str:
    """The text behind the prompt that comes before every answer, of text or of calls; it cuts no control token."""
    if answered is None or not answered.startswith(prompt):
        return ""
    lead = answered[len(prompt) :].partition(words)[0]
    end = len(lead)
    if called is not None and called.startswith(prompt):
        end = num_common(lead, called[len(prompt) :])
    for token in control.finditer(lead):
        if token.start() < end < token.end():
            end = token.start()
    # A single space may begin the answer's first token; a line break belongs to the header.
    return lead[:end].lstrip().rstrip(" ")
