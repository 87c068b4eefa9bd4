"""Names for sources that only have a path."""

import re
from collections.abc import Iterable


def unique_names(paths: Iterable[str]) -> list[str]:
    """A name for each: the last part of its path without endings, with a number if the name is taken."""
    names: list[str] = []
    for path in paths:
        last = path.rstrip("/").rpartition("/")[2]
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", last.partition(".")[0]).strip("-_")[:80] or "data"
        number = 1
        unique = name
        while unique in names:
            number += 1
            unique = f"{name}-{number}"
        names.append(unique)
    return names
