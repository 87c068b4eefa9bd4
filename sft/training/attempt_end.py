"""Why an attempt ended, as its folder says: for the next attempt, and for the driver. Imports no torch."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from sft.atomic_files import read_json, write_json
from sft.run_folder import RunFolder
from sft.training.last_words import describe_end
from sft.training.run_storage import why_unusable
from sft.url_secrets import without_secrets

End = Literal["done", "stopped", "regroup", "wrong input", "failed"]

_ENDED = "ended.json"


def write_end(folder: Path, why: End, message: str) -> None:
    """Into the attempt's folder: why it ended."""
    # On a disk that is full there may be no room for it: the next start, or whoever asks, finds that out again.
    with suppress(OSError):
        write_json(folder / _ENDED, {"why": why, "message": without_secrets(message)})


def read_end(run: RunFolder) -> dict[str, Any]:
    """Why the last attempt ended, with its message; where that is not written down, what is wrong with the folder."""
    ended = how_it_ended(run.attempt(run.latest_attempt()))
    if ended is not None:
        return ended
    return {"why": "failed", "message": why_unusable(run) or describe_end(run.attempt(run.latest_attempt()))}


def unended_attempt(run: RunFolder, first_attempt: int) -> Path | None:
    """The folder of the newest attempt, where it is `first_attempt` or later and has not said why it ended."""
    number = run.latest_attempt()
    folder = run.attempt(number)
    return folder if number >= first_attempt and how_it_ended(folder) is None else None


def how_it_ended(folder: Path) -> dict[str, Any] | None:
    """What the attempt's folder says; None where it says nothing."""
    path = folder / _ENDED
    return read_json(path) if path.is_file() else None
