"""Errors that the user can fix: shown as a message, with exit code 2 or 1, never as a traceback."""


class UserError(ValueError):
    """Wrong config or input. The text says what was given, what was needed, and what to do."""

    def __init__(self, message: str = "", *, is_everywhere: bool = False) -> None:
        """`is_everywhere`: all ranks of the job raise it together, so that none waits for another."""
        super().__init__(message)
        self.is_everywhere = is_everywhere


class TrainingError(Exception):
    """The training cannot go on, and a restart would not change that. The message is for the user."""

    def __init__(self, message: str = "", *, is_everywhere: bool = False) -> None:
        """`is_everywhere`: see `UserError`."""
        super().__init__(message)
        self.is_everywhere = is_everywhere


class RecordError(ValueError):
    """This record cannot be used; the text is the reason."""
