"""The scheduler's job that this process is an attempt of. The script that is requeued sets two variables:

    SFT_JOB="lab 71" SFT_JOB_ATTEMPT=2

A process that a user starts inside an allocation is not an attempt of that job, and has no such variables.
"""

import os
from typing import NamedTuple


class QueuedJob(NamedTuple):
    """A job that is requeued after its nodes were taken away. Attempts count from 1; the newest one has the nodes."""

    name: str
    attempt: int


def queued_job() -> QueuedJob | None:
    """The job of this process; None if no scheduler would start it again."""
    name = os.environ.get("SFT_JOB")
    return QueuedJob(name, int(os.environ["SFT_JOB_ATTEMPT"])) if name else None
