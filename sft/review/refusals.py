"""Why something that was asked for is not done, as the page says it."""

import logging

from sft.errors import RecordError, UserError

_LOG = logging.getLogger(__name__)


class Refused(Exception):
    """What the page asked for cannot be done; the text says why."""


class Gone(Refused):
    """The record is not in the file any more, so nothing can be said of it."""


class NotNow(Refused):
    """The files cannot be read at the moment: the same may be done later."""


def reason_of(error: Exception) -> str:
    """For the page. An error that nobody has thought of is logged, too."""
    if isinstance(error, OSError):
        return f"the disk did not take it: {error.strerror or error}"
    if isinstance(error, Refused | UserError | RecordError):
        return str(error)
    _LOG.error("The page was answered that the program fails.", exc_info=error)
    return f"the program fails at it ({type(error).__name__}): please report what its terminal shows"
