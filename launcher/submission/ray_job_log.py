"""Prints the log of a job on a Ray cluster until the job has ended. Following only reads: it can be
ended and started again, and it reconnects after a lost connection.
"""

import asyncio
import sys
import time

import aiohttp
import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from launcher.console import fit_log, say_error
from launcher.exit_codes import DONE, FAILED, STOPPED, WRONG_INPUT

_SILENCE_SECONDS = 60.0
"""After this time it reconnects: a vanished machine is silent, too."""

_GIVE_UP_SECONDS = 120.0
_RETRY_SECONDS = 2.0


def follow(client: JobSubmissionClient, job_id: str) -> int:
    """Print a job's log to stdout until it has ended; returns the exit code of `sft train`, or 1 if there is none."""
    return asyncio.run(_Follower(client, job_id).follow())


class _Follower:
    def __init__(self, client: JobSubmissionClient, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._num_printed = 0

    async def follow(self) -> int:
        is_over = False
        answered_at = time.monotonic()
        while True:
            is_whole = await self._print_log()
            try:
                details = self._client.get_job_info(self._job_id)
            except (requests.RequestException, RuntimeError) as error:
                if time.monotonic() - answered_at > _GIVE_UP_SECONDS:
                    sys.stderr.write(
                        f"{self._client.get_address()} has not answered for {_GIVE_UP_SECONDS:.0f} seconds: {error}\n"
                        "If the cluster still runs, follow the job as above. If it is gone, so is the job: submit it "
                        "again, and it goes on from its last checkpoint.\n"
                    )
                    return FAILED
            else:
                answered_at = time.monotonic()
                # The end of the log may have been missed. If its node is gone, one more try is enough.
                if details.status.is_terminal() and (is_whole or is_over):
                    return _exit_code(details)
                is_over = details.status.is_terminal()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _print_log(self) -> bool:
        """Print the new part of the log, which always comes from its first line; returns whether its end was seen."""
        num_seen = 0
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(_SILENCE_SECONDS) as limit:
                async for text in self._client.tail_job_logs(self._job_id):
                    limit.reschedule(now() + _SILENCE_SECONDS)
                    self._print(text[max(0, self._num_printed - num_seen) :])
                    num_seen += len(text)
        except (aiohttp.ClientError, RuntimeError, TimeoutError):
            return False
        return True

    def _print(self, text: str) -> None:
        sys.stdout.write(fit_log(text))
        sys.stdout.flush()
        self._num_printed += len(text)


def _exit_code(details: JobDetails) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return DONE
    if details.status == JobStatus.STOPPED:
        sys.stderr.write("Stopped on request. Submitted again, the job goes on.\n")
        return STOPPED
    if details.driver_exit_code is None:
        say_error(f"Ray says why it failed: {details.message}")
    return details.driver_exit_code if details.driver_exit_code in (WRONG_INPUT, STOPPED) else FAILED
