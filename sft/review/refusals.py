"""Why something that was asked for is not done, as the page says it."""


class Refused(Exception):
    """What the page asked for cannot be done; the text says why."""


class Gone(Refused):
    """The record is not in the file any more, so nothing can be said of it."""


class NotNow(Refused):
    """The files cannot be read at the moment: the same may be done later."""


def reason_of(error: Exception) -> str:
    """For the page."""
    return f"the disk did not take it: {error.strerror or error}" if isinstance(error, OSError) else str(error)
