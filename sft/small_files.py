"""Reads small files that the user names: configs, templates. Anything else is refused before it is read.

A pipe or a device may never end, and a file of gigabytes cannot be the one that was meant.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from sft.errors import UserError

MAX_CONFIG_BYTES = 1_000_000
"""The limit for a config in YAML. A config with a thousand sources has a third of it."""

MAX_JSON_BYTES = 50_000_000
"""The limit for a model's config.json."""


def read_small_text(path: Path, what: str, max_bytes: int = MAX_CONFIG_BYTES) -> str:
    """The text of a UTF-8 file.

    Args:
        path: where it should be.
        what: the file's role, for messages after the path, such as `the config`.
        max_bytes: a larger one is refused.

    Raises:
        UserError: it does not exist, is not a file, is too large, or is not text.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise UserError(f"{path}: {what} cannot be read: this is {kind}; needed: a file")
        # Never wait, whatever it is. Read even if the size is 0, which files of /proc report.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            content = file.read(max_bytes + 1) or b""
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: {what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > max_bytes:
        num_bytes = max(status.st_size, len(content))
        raise UserError(f"{path}: {what} cannot be read: it has {num_bytes:,} bytes; needed: at most {max_bytes:,}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {what} cannot be read: it is not UTF-8 (byte {error.start:,})") from None


def read_small_json(path: Path, what: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The content of a JSON file; see `read_small_text`.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_small_text(path, what, max_bytes))
    except RecursionError:
        raise UserError(f"{path}: {what} cannot be read: it is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: {what} cannot be read: it is not JSON: {error}") from None
