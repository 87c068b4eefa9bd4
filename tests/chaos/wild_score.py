"""A scorer of a user that fails on some answers: it raises on one, and does not end on another. Once each, by files."""

import os
import time
from pathlib import Path
from typing import Any


def judge(answer: str, references: list[str], record: dict[str, Any]) -> float:
    folder = Path(os.environ["WILD_SCORE_FOLDER"])
    number = len(list(folder.iterdir()))
    (folder / str(number)).touch()
    if number == 0:
        raise ZeroDivisionError("nothing to divide by")
    if number == 1:
        time.sleep(3600)
    return 1.0
