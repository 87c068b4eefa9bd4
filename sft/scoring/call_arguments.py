"""How the arguments of a call are written behind its name, and how they are read there.

    JSON       f[ARGS]{"city": "Rome", "days": 3}
    Python     f(city="Rome", days=3)
    marks      f>↵<parameter=city>↵Rome↵</parameter>↵<parameter=days>↵3↵</parameter>

Between marks, 3 may be a number or a text: such a value is `Undecided`, and what was asked says which it is.
"""

import ast
import math
import re
import warnings
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from sft.strict_json import read_json, read_json_at

ANY_ID: Final = "\ue0f1"
"""In the pieces of a form: an id of a call, whatever it is."""
_ID = rf"[\w.:{ANY_ID}-]*"
_NAME = re.compile(r"\S+")
_MOST_CLOSERS = 200
_WORDS_OF_JSON: dict[str, bool | None] = {"true": True, "false": False, "null": None}


class Undecided(NamedTuple):
    """A value that is written as a text and as something else would be."""

    value: Any
    """As something else, such as a number."""
    text: str


class ReadCall(NamedTuple):
    """A call in a text."""

    name: str
    arguments: dict[str, Any]
    end: int
    """Where its arguments end."""


class JsonArguments(NamedTuple):
    """One JSON object."""

    before: str
    """Between the name and the object."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """What is written around values."""
        return (self.before,)

    def read(self, text: str, at: int, behind: str) -> ReadCall | None:
        """The call whose name begins at `at`; None where there is none. `behind` matches what follows a call."""
        found = compiled(pattern(self.before) + r"\s*(?=\{)").search(text, at)
        if found is None or not _NAME.fullmatch(text, at, found.start()):
            return None
        try:
            arguments, end = read_json_at(text, found.end())
        except ValueError:
            return None
        return ReadCall(text[at : found.start()], arguments, end) if isinstance(arguments, dict) else None


class PythonArguments(NamedTuple):
    """Keyword arguments, as Python or with the constants of JSON."""

    pieces: tuple[str, ...] = ("(", ")")

    def read(self, text: str, at: int, behind: str) -> ReadCall | None:
        """As `JsonArguments.read`: up to the first place that makes the call whole."""
        opening, closing = self.pieces
        opened = text.find(opening, at)
        if opened < 0 or not _NAME.fullmatch(text, at, opened):
            return None
        end = opened
        for _ in range(_MOST_CLOSERS):
            end = text.find(closing, end) + 1
            if not end:
                return None
            if (arguments := _python_arguments(text[opened:end])) is not None:
                return ReadCall(text[at:opened], arguments, end)
        return None


class MarkedArguments(NamedTuple):
    """Each argument with its key between marks: `begin KEY to_value VALUE (between KEY to_value VALUE)* end`."""

    begin: str
    to_text: str
    """Between a key and a value that is a text."""
    to_other: str
    """The same for other values, often equal."""
    between: str
    end: str
    none: str
    """Behind the name of a call without arguments."""
    values: Literal["json", "text or json", "text or python"]
    """Their notation: of all, or of all but texts, which are as they are. Python's is that of constants."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """What is written around keys and values."""
        return self[:-1]

    def read(self, text: str, at: int, behind: str) -> ReadCall | None:
        """As `JsonArguments.read`."""
        opened = compiled(rf"(\S+?)(?:({pattern(self.begin)})|{pattern(self.none)}(?={behind}))").match(text, at)
        if opened is None:
            return None
        arguments: dict[str, Any] = {}
        place, goes_on = opened.end(), opened[2] is not None
        to_value = f"({_up_to(self.to_text)})|({_up_to(self.to_other)})"
        item = compiled(rf"(?>([^\n]+?)(?:{to_value}))(.*?)(?:({_from(self.between)})|{_from(self.end)}(?={behind}))")
        while goes_on:
            found = item.match(text, place)
            if found is None or found[1] in arguments:
                return None
            key, is_text, written = found[1], found[2] is not None, found[4]
            try:
                arguments[key] = self._value(written, is_text)
            except ValueError:
                return None
            place, goes_on = found.end(), found[5] is not None
        return ReadCall(opened[1], arguments, place)

    def _value(self, written: str, is_text: bool) -> Any:
        if self.values == "json" or not (is_text or self.to_text == self.to_other):
            return read_json(written.strip())
        if self.to_text != self.to_other:
            return written
        try:
            value = read_json(written.strip())
            if self.values == "text or python" and (value is None or isinstance(value, bool)):
                return written
        except ValueError:
            value = _python(written) if self.values == "text or python" else written
        return written if isinstance(value, str) else Undecided(value, written)


Arguments = JsonArguments | PythonArguments | MarkedArguments


@lru_cache(maxsize=256)
def pattern(piece: str) -> str:
    """Finds a piece of a form: numbers and ids may be others, and white space is free."""
    if piece and not piece.strip():
        return r"\s+"
    words = r"\s*".join(re.sub(r"\d+", lambda _: r"\d+", re.escape(word)) for word in piece.split())
    before, behind = (r"\s*" if piece != stripped else "" for stripped in (piece.lstrip(), piece.rstrip()))
    return f"{before}{words.replace(ANY_ID, _ID)}{behind}"


@lru_cache(maxsize=256)
def compiled(expression: str) -> re.Pattern[str]:
    """A pattern in which a point is any character."""
    return re.compile(expression, re.DOTALL)


@lru_cache(maxsize=256)
def _up_to(piece: str) -> str:
    """A piece before a value: white space at its end is the template's, more is the value's."""
    words = piece.rstrip()
    return f"{pattern(words)}(?:{re.escape(piece[len(words) :])})?"


@lru_cache(maxsize=256)
def _from(piece: str) -> str:
    """A piece behind a value."""
    words = piece.lstrip()
    return f"(?:{re.escape(piece[: len(piece) - len(words)])})?{pattern(words)}"


def _python(text: str) -> Any:
    """The value of a text; itself if it is none of Python."""
    try:
        return _value(_parsed(text.strip()), words=False)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _python_arguments(text: str) -> dict[str, Any] | None:
    """The keyword arguments in parentheses; None where this is something else."""
    try:
        call = _parsed(f"f{text}")
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            return None
        arguments = {word.arg: _value(word.value) for word in call.keywords if word.arg is not None}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return arguments if len(arguments) == len(call.keywords) else None


def _parsed(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown escape is what a model wrote, and no mistake of ours
        return ast.parse(text, mode="eval").body


def _value(node: ast.expr, words: bool = True) -> Any:
    """The value that is written; `words`: also with the constants of JSON.

    Raises:
        ValueError: JSON has no form for it, or it is no value.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.encode("utf-16", "surrogatepass").decode("utf-16")  # halves of JSON's escapes are one
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | int | float)):
        if node.value == math.inf:  # as 1e999
            raise ValueError("no number of JSON")
        return node.value
    if words and isinstance(node, ast.Name) and node.id in _WORDS_OF_JSON:
        return _WORDS_OF_JSON[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        number = node.operand.value
        if isinstance(number, int | float) and not isinstance(number, bool) and number != math.inf:
            return -number
    if isinstance(node, ast.List):
        return [_value(one, words) for one in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_value(key, words) if key is not None else None for key in node.keys]
        if all(isinstance(key, str) for key in keys) and len({*keys}) == len(keys):
            return dict(zip(keys, (_value(one, words) for one in node.values), strict=True))
    raise ValueError("no value of JSON")
