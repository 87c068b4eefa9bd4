"""What a disk refuses, said in words: it is full, it may not be written, or the folder is gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sft.errors import UserError

MAKE_ROOM = "Make room, and give the same command again: nothing that was paid is lost."


@contextmanager
def told_of_disk(path: Path, way_out: str, field: str = "") -> Iterator[None]:
    """For a block that only writes to `path`; `way_out` says what to do, `field` which one of the config it is.

    Raises:
        UserError: the disk refuses.
    """
    try:
        yield
    except OSError as error:
        where = f"{field}: {path}" if field else str(path)
        raise UserError(f"{where} cannot be written: {error.strerror or error}. {way_out}") from error
