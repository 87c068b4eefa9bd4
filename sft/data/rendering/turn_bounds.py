"""Where an answer begins and ends in the text of a chat template, as a model at inference meets it.

    begins   where the generation prompt ends, which the template itself writes in front of an answer
    ends     behind the control tokens with which the template ends the turn: all of them, and no token of the next turn

Between the two stands what the model has to write. What is the same for all answers is found out once, by probes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from sft.data.formats.formatting import RecordError
from sft.data.rendering.adaptation import RenderTemplate
from sft.schema import Message, ToolCall

MARKS = range(0xE000, 0xF900)
"""Private-use characters, which no template looks for: probes are made of them."""


@dataclass(frozen=True, slots=True)
class TurnBounds:
    """What holds for the turns of every conversation of one template."""

    control: re.Pattern[str]
    """Finds the control tokens of the tokenizer in a text; longer ones first."""
    header: str | None = None
    """What stands before an answer though no generation prompt says so; None where the template writes one."""
    final_only: tuple[str, ...] = ()
    """Control tokens that the template writes behind the end of a turn where the whole conversation ends."""
    ends_turns: bool = True
    """Whether the template writes a control token behind an answer of text that ends the conversation."""
    stop_tokens: frozenset[str] = frozenset()
    """At which the model ends its generation, by what came with it."""
    turn_end: str | None = None
    """What is put behind an answer where the template does not end it."""

    def find_start(self, text: str, prompt: str) -> int | None:
        """Where the answer begins in `text`, which shows it; None where `text` does not begin with the prompt.

        White space may differ between the two: some templates write other white space before some answers.
        """
        start = len(prompt) if text.startswith(prompt) else _find_end(text, prompt)
        if start is None or not self.header:
            return start
        begin = start + len(text[start:]) - len(text[start:].lstrip())
        return begin + len(self.header) if text.startswith(self.header, begin) else None

    def find_end(self, text: str, start: int) -> int | None:
        """Where the turn ends with which `text` ends: behind its last control token, with nothing but white space
        behind; None where there is none. The answer begins at `start`."""
        run: list[re.Match[str]] = []
        behind = len(text)
        for token in reversed(list(self.control.finditer(text, start))):
            if text[token.end() : behind].strip():
                break
            run.insert(0, token)
            behind = token.start()
        num_final = len(self.final_only)
        if len(run) > num_final and tuple(token.group() for token in run[len(run) - num_final :]) == self.final_only:
            run = run[: len(run) - num_final]
        return run[-1].end() if run else None

    def put_end(self, text: str, following: str) -> tuple[str, int]:
        """`text`, which ends in an answer, with an end put behind its words, and where that ends.

        Where the conversation goes on in `following` with a control token at which the model stops, that is the end.
        """
        assert self.turn_end is not None
        words_end = len(text.rstrip())
        if following.startswith(text[:words_end]):
            opener = self.control.match(following, words_end + _num_spaces(following, words_end))
            if opener is not None and opener.group() in self.stop_tokens:
                return following[: opener.end()], opener.end()
        return text[:words_end] + self.turn_end + text[words_end:], words_end + len(self.turn_end)


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
        stop_tokens: those at which the model ends its generation.
        turn_end: what to put behind answers where the template does not end them.
    """
    ordered = sorted(special_tokens - {""}, key=lambda token: (-len(token), token))
    control = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
    user, mark = Message("user", "probequestion"), chr(MARKS[0])
    answer = Message("assistant", f"{mark}probe{mark}")

    def text_of(*messages: Message, for_generation: bool = False) -> str | None:
        try:
            return render_template(messages, (), for_generation=for_generation)
        except RecordError:
            return None

    def tokens_behind(text: str | None) -> list[str]:
        """The control tokens right behind the answer."""
        tokens: list[str] = []
        rest = (text or "").partition(answer.content)[2].lstrip()
        while found := control.match(rest):
            tokens.append(found.group())
            rest = rest[found.end() :].lstrip()
        return tokens

    alone = text_of(user, answer)
    ends, followed = tokens_behind(alone), tokens_behind(text_of(user, answer, user))
    num_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ends, followed, strict=False)))
    prompt, bare = text_of(user, for_generation=True), text_of(user)
    header = None
    if prompt is not None and prompt == bare:
        call = Message("assistant", "", tool_calls=(ToolCall("probecall", {"probekey": "probevalue"}, "000000001"),))
        leads = [_behind(text, prompt) for text in (alone, text_of(user, call))]
        header = _common_lead([lead.partition(answer.content)[0] for lead in leads if lead is not None], control)
    final_only = tuple(ends[num_common:]) if num_common else ()
    # Of a template that refuses the probes nothing is known: whether it ends an answer then shows in each text.
    return TurnBounds(control, header, final_only, bool(ends) or alone is None, stop_tokens, turn_end)


def _find_end(text: str, prompt: str) -> int | None:
    """Where the prompt ends in a text that begins with it but for white space; None where it does not."""
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
    """Characters that two texts have in common at their beginning, by halving: texts are long, comparing is fast."""
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


def _behind(text: str | None, prompt: str) -> str | None:
    return text[len(prompt) :] if text is not None and text.startswith(prompt) else None


def _common_lead(leads: Sequence[str], control: re.Pattern[str]) -> str:
    """What all begin with, but for white space around; no control token is cut."""
    if not leads:
        return ""
    end = min(num_common(leads[0], lead) for lead in leads)
    for token in control.finditer(leads[0]):
        if token.start() < end < token.end():
            end = token.start()
    # A single space may be the beginning of the answer's first token; a line break is the header's.
    return leads[0][:end].lstrip().rstrip(" ")
