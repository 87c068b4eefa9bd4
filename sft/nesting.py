"""How deep lists and objects are nested in each other, in JSON that people or models hand in.

Whatever goes through a value by calling itself, such as a copy, may go no deeper than Python's calls.
"""

from typing import Any

MOST_LEVELS = 100
"""Real records do not need ten."""


def is_deep(value: Any, text: str | bytes | None = None) -> bool:
    """Whether there are more than `MOST_LEVELS` levels of lists and objects.

    Args:
        value: what was read.
        text: what it was read from. To count its brackets is much faster than to look, and enough for nearly all.
    """
    if isinstance(text, bytes) and text.count(b"[") + text.count(b"{") <= MOST_LEVELS:
        return False
    if isinstance(text, str) and text.count("[") + text.count("{") <= MOST_LEVELS:
        return False
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [inner for outer in level for inner in _within(outer)]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _within(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
