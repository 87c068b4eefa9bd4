"""JSON as its standard has it: NaN and Infinity are none, nor is a number that no float holds, such as 1e999.

What Python's own reader makes of these breaks whatever computes with them, and cannot be written as JSON again.
"""

import json
import math
from typing import Any, Final


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is more than a number of JSON can be")
    return value


STRICT_JSON: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
"""Its `decode` and `raw_decode` raise a ValueError, also for integers of more than 4,300 digits, and a RecursionError
for what is nested too deep."""
