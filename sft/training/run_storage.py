"""Says in words that the run folder is gone or cannot be written; nothing is made in its place."""

import errno
import os
import tempfile

from sft.run_folder import RunFolder

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

_LEAST_FREE_BYTES = 64 * 1024
"""A disk with less room counts as full: the next lines of ledger, metrics and events would not fit."""


def why_unusable(run: RunFolder) -> str | None:
    """What is wrong with the run folder of a prepared run; None if nothing is, or if it may go away by itself."""
    if not run.config.is_file():
        return (
            f"the run folder {run.path} is gone: it was deleted or moved, or its file system is no longer mounted. It "
            "is not made anew. Bring it back; the same command then goes on from its last checkpoint."
        )
    try:
        with tempfile.NamedTemporaryFile(dir=run.path, prefix=".room-", suffix=".partial") as file:
            file.write(bytes(_LEAST_FREE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _FULL:
            return (
                f"the disk of the run folder {run.path} is full ({error.strerror}). What was published there is "
                "intact. Make room; the same command then goes on from the last checkpoint."
            )
        if error.errno in _READ_ONLY:
            return (
                f"the run folder {run.path} cannot be written ({error.strerror}). What was published there is intact. "
                "Make it writable again; the same command then goes on from the last checkpoint."
            )
    return None
