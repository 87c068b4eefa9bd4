"""The one error that is the user's to mend: it is shown as a message with exit code 2, never as a traceback."""


class UserError(ValueError):
    """Wrong config or input. The text says what was given, what was needed, and what to do."""
