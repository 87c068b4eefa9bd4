"""The job of a scheduler that this process is an attempt of: whoever queues it again says so in two variables.

    SFT_JOB="lab 71" SFT_JOB_ATTEMPT=2

A process that a person starts inside of an allocation is no attempt of that job: there the variables are missing.
"""

import os
from typing import NamedTuple


class QueuedJob(NamedTuple):
    """A job that comes back after its nodes were taken away. Of its attempts, which are counted from 1, the newest has
    the nodes."""

    name: str
    attempt: int


def queued_job() -> QueuedJob | None:
    """The job of this process; None where nobody would start it again."""
    name = os.environ.get("SFT_JOB")
    return QueuedJob(name, int(os.environ["SFT_JOB_ATTEMPT"])) if name else None
