"""Errors that are for a person to mend: shown as a message, with exit code 2 or 1, never as a traceback."""


class UserError(ValueError):
    """Wrong config or input. The text says what was given, what was needed, and what to do."""

    is_everywhere = False
    """Whether all ranks of a job raise it together, so that none waits for another."""


class TrainingError(Exception):
    """The training cannot go on, and starting it again would not change that. The message is for a person."""

    is_everywhere = False
    """See `UserError`."""
