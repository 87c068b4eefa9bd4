"""Why an attempt ended, for the next one and the driver, even if it did not record that. Imports no torch."""

from sft.attempt_record import End, read_end
from sft.run_folder import AttemptFolder, RunFolder
from sft.training.last_words import describe_end
from sft.training.run_storage import why_unusable


def end_of_last_attempt(run: RunFolder) -> End:
    """Why the last attempt ended; if that is not recorded, what is wrong with the folder."""
    folder = run.attempt(run.latest_attempt())
    return read_end(folder) or End("failed", why_unusable(run) or describe_end(folder))


def unended_attempt(run: RunFolder, first_attempt: int) -> AttemptFolder | None:
    """The folder of the newest attempt, if it is `first_attempt` or later and has not recorded why it ended."""
    number = run.latest_attempt()
    folder = run.attempt(number)
    return folder if number >= first_attempt and read_end(folder) is None else None
