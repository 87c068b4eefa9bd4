"""The budget of a chat template for one conversation: a number of steps. Steps are counted, so the same template always
stops at the same place, on any machine.

A step is an evaluated node of the template, an element of an iteration, or a character of a new text. An operation is
charged before its result is made. Every charge here goes to the budget that the current thread began.
"""

import functools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2.utils import Namespace

NUM_STEPS = 2_000_000
"""For a conversation of any length. The largest templates in use take a few thousand for a turn."""

STEPS_PER_CHAR = 200
"""And for each character of the conversation and its tools: a template may go through all turns at each turn."""

_MAX_FORMAT_WIDTH = 100_000
# Where Python's two kinds of format strings have a width or a precision: `%(name)08.3f`, `{name:>10}`.
_WIDTHS = (re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%]*?(\d{6,})"), re.compile(r"\{[^{}:]*:[^{}]*?(\d{6,})"))

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_SIZED: tuple[type, ...] = (str, bytes, list, tuple, dict, range, set, frozenset, *_VIEWS)


class BudgetExceededError(Exception):
    """The template does more than it may. Not of a type that Jinja's own filters would catch and ignore."""


class _Budget(threading.local):
    left = 0
    told: Any = None


_budget = _Budget()


def begin_budget(told: Any = None) -> None:
    """Give this thread `NUM_STEPS`, and `STEPS_PER_CHAR` for each character of `told`, the template's variables.

    `told` is measured only when that is needed.
    """
    _budget.left, _budget.told = NUM_STEPS, told


def charge(num_steps: int) -> None:
    """Take steps from this thread's budget.

    Raises:
        BudgetExceededError: there are not enough left.
    """
    left = _budget.left - num_steps
    if left < 0:
        told, _budget.told = _budget.told, None
        left += STEPS_PER_CHAR * text_size(told) if told is not None else 0
        if left < 0:
            raise BudgetExceededError
    _budget.left = left


def charge_built(value: Any) -> Any:
    """Charge all that a container holds, as often as it occurs; returns it. One that contains itself never ends."""
    level = [value]
    while level:
        charge(8 + 4 * len(level))
        below: list[Any] = []
        num_chars = 0
        for item in level:
            if isinstance(item, str | bytes):
                num_chars += len(item)
            elif isinstance(item, list | tuple | set | frozenset):
                below += item
            elif isinstance(item, dict | Namespace):
                below += _values(item)
        charge(num_chars)
        level = below
    return value


def charge_items(iterable: Any, steps_per_item: int) -> Any:
    """Charge what a loop over `iterable` will take; if its length is unknown, charge item by item."""
    if isinstance(iterable, _SIZED):
        charge(size(iterable) * steps_per_item)
        return iterable
    return _counted(iterable, steps_per_item) if isinstance(iterable, Iterator) else iterable


def charge_result(value: Any) -> Any:
    """Charge a result that is known not to be much larger than what it was made from; returns it."""
    return charge_items(value, 1)


def size(value: Any) -> int:
    """The number of its characters, bytes or elements; 1 for a value without any."""
    num: int = len(value) if isinstance(value, _SIZED) else 1  # type: ignore[arg-type]
    return num


def multiply(left: Any, right: Any) -> Any:
    """`left * right`, charged before it is made."""
    if isinstance(left, int) and isinstance(right, int):
        first, second = left.bit_length(), right.bit_length()
        charge(((first + second) >> 3) + (first * second >> 16))
    else:
        charge(max(size(left) * _factor(right), size(right) * _factor(left)))
    return left * right


def raise_power(left: Any, right: Any) -> Any:
    """`left ** right`, charged before it is made."""
    if isinstance(left, int) and isinstance(right, int):
        charge((left.bit_length() * abs(right)) ** 2 >> 6)
    return left**right


def remainder(left: Any, right: Any) -> Any:
    """`left % right`, of numbers or of a format string, charged before it is made."""
    if isinstance(left, str | bytes):
        charge_format(left, right if isinstance(right, tuple) else (right,))
        return charge_result(left % right)
    return left % right


def charge_format(text: str | bytes, values: Iterable[Any]) -> None:
    """Charge a format string (Python's two kinds) and its values, but not the widths: long ones are refused.

    Raises:
        BudgetExceededError: it asks for a width that no text needs.
    """
    values = list(values)
    width, takes_widths, num_fields = _read_format(text if isinstance(text, str) else text.decode("latin-1"))
    if takes_widths:
        width = max([width, *(abs(value) for value in values if isinstance(value, int))])
    if width > _MAX_FORMAT_WIDTH:
        raise BudgetExceededError
    charge(len(text) + num_fields * max(map(size, values), default=1))
    for value in values:
        if type(value) is not str:
            charge_built(value)


@functools.lru_cache(256)
def _read_format(text: str) -> tuple[int, bool, int]:
    """The largest number in it that may be a width, whether a value may be one (`%*d`, `{:{width}}`), its fields."""
    widths = [int(digits[:9]) for pattern in _WIDTHS for digits in pattern.findall(text)]
    takes_widths = "*" in text or re.search(r"\{[^}]*\{", text) is not None
    return max(widths, default=0), takes_widths, text.count("%") + text.count("{")


def text_size(value: Any) -> int:
    """Characters of all texts in a conversation's content, plus a constant for each value."""
    if isinstance(value, Mapping):
        return sum(text_size(key) + text_size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 100 + sum(text_size(item) for item in value)
    return 20 + (len(value) if isinstance(value, str) else 0)


def _counted(items: Iterator[Any], steps_per_item: int) -> Iterator[Any]:
    for item in items:
        charge(steps_per_item)
        yield item


def _values(mapping: Any) -> Iterable[Any]:
    return mapping.values() if isinstance(mapping, dict) else mapping._Namespace__attrs.values()


def _factor(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0
