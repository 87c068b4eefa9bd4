"""How scores, intervals and differences are written: shares in percent, other scores as they are."""

import math

from sft.evaluation.tables import number
from sft.scoring.statistics import Difference, Interval

NOT_SEEN = "○"
"""Stands at a difference whose interval holds 0."""
NOT_SEEN_TEXT = "no difference can be seen at this number of examples"


def score_text(value: float, is_share: bool, *, signed: bool = False) -> str:
    """A score: `63` percent, or `4.2`; a dash if there is none."""
    shown = 100 * value if is_share else value
    # Which side of 0 a difference ends at is what it is read for.
    num_digits = int(not is_share and abs(shown) < 100 or signed and 0 < abs(shown) < 1)
    text = number(shown, num_digits)
    # A true minus sign, and no sign on what rounds to zero.
    text = text.replace("-", "−") if round(shown, num_digits) else text.replace("-", "")
    return f"+{text}" if signed and shown > 0 and round(shown, num_digits) else text


def range_text(interval: Interval | Difference, is_share: bool) -> str:
    """Where the true value lies: `55–70`, `+3…+21`."""
    if not math.isfinite(interval.low):
        return ""
    signed = isinstance(interval, Difference)
    ends = (score_text(end, is_share, signed=signed) for end in (interval.low, interval.high))
    return ("…" if signed else "–").join(ends)


def interval_text(interval: Interval, is_share: bool) -> str:
    """A score with its interval on one line: `63 55–70`."""
    return f"{score_text(interval.value, is_share)} {range_text(interval, is_share)}".strip()


def difference_text(difference: Difference | None, is_share: bool) -> str:
    """A difference with its interval on one line: `+12 +3…+21`, or `+2 −5…+9 ○`."""
    if difference is None:
        return "–"
    text = f"{score_text(difference.value, is_share, signed=True)} {range_text(difference, is_share)}".strip()
    return text if difference.is_seen else f"{text} {NOT_SEEN}"


def sentence(difference: Difference, is_share: bool) -> str:
    """What a difference says, in words."""
    unit = " points" if is_share else ""
    ends = range_text(difference, is_share)
    text = f"{score_text(difference.value, is_share, signed=True)}{unit}{f' ({ends})' if ends else ''}"
    if difference.is_seen:
        return text
    return f"{text}: no difference can be seen at {difference.num_pairs:,} examples"
