"""Makes text fit to print: names, contents and errors from elsewhere cannot move the cursor, ring the bell or reverse a
line.

A character without a glyph is spelled by its number, `⟨U+001B⟩`; secrets are removed. Everything that terminals, pages
and plots print goes through here.
"""

import re
import unicodedata

from sft.url_secrets import without_secrets

_UNUSUAL = re.compile(r"[^\n\t -~]")
# These join letters in Persian, in Hindi and in emoji, and do nothing else.
_JOINERS = "\u200c\u200d"
_EMOJI_LOOK = "\ufe0f"
"""Behind a character that has two looks."""
_IGNORED = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point, as far as the categories do not tell: fillers, selectors of variants."""
_NAME_CHARS = 60
_MAX_MESSAGE_CHARS = 20_000
_MAX_WORD_CHARS = 1_000
_LONG_WORD = re.compile(rf"\S{{{_MAX_WORD_CHARS + 1},}}")


def printable(text: str) -> str:
    """The text with all characters without a glyph spelled out, except line breaks and tabs."""
    return text if text.isascii() and text.isprintable() else _UNUSUAL.sub(lambda found: _spelled(found[0]), text)


def fit_to_print(text: str) -> str:
    """A text for a terminal or a page: printable, and without secrets."""
    return printable(without_secrets(text))


def fit_message(text: str) -> str:
    """A message for a terminal, in which endless words and endless lists are shortened."""
    text = _LONG_WORD.sub(lambda found: shortened(found[0], _MAX_WORD_CHARS), fit_to_print(text))
    return shortened(text, _MAX_MESSAGE_CHARS)


def short_name(name: str, num_chars: int = _NAME_CHARS) -> str:
    """A name for a table or a plot, on one line; of a long name, the beginning and the end."""
    return shortened(fit_to_print(name[: 4 * num_chars] + name[4 * num_chars :][-num_chars:]), num_chars).translate(
        _LINE
    )


def counted(num: int, name: str) -> str:
    """`1 step`, `1,400 steps`."""
    return f"{num:,} {name}" if num == 1 else f"{num:,} {name}s"


def shortened(text: str, num_chars: int) -> str:
    """The beginning and the end of a long text: similar names differ there."""
    half = num_chars // 2
    return text if len(text) <= num_chars else f"{text[:half]}…{text[half + 1 - num_chars :]}"


def has_no_glyph(char: str) -> bool:
    """Control, format, private use, surrogate, line and paragraph separator; what is ignored where it is not known; and
    spaces that are not the space.
    """
    return unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"} or bool(_IGNORED.match(char))


_LINE = {ord("\n"): "⟨U+000A⟩", ord("\t"): " "}


def _spelled(char: str) -> str:
    is_harmless = not has_no_glyph(char) or char in _JOINERS + _EMOJI_LOOK or unicodedata.category(char) == "Zs"
    return char if is_harmless else f"⟨U+{ord(char):04X}⟩"
