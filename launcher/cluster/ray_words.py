"""What Ray says of something that is gone, in a sentence, and the record of it that the controller keeps.

Ray's own texts are paragraphs with identifiers, advice and tables. The controller of Ray Train is the only one that
sees how a worker ended, so it writes that down (`WorkerRecord`) before it starts the next group.
"""

import re
from typing import Any

from ray.exceptions import ActorUnavailableError, RayError
from ray.train import UserCallback

from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.training.failures import describe_error, follows_from_a_loss
from sft.training.last_words import GONE, RAISED

_MOST_CHARS = 300

_MEMORY = re.compile(r"was running was (\S+ ?/ ?\S+) \(")
_NODE = re.compile(r"the actor's node was terminated \w+: (.+)")
_EXIT_CODE = re.compile(r"exit code[ :]*(-?\d+)")
_DETAIL = re.compile(r"\s*(class_name|actor_id|pid|name|namespace|ip)\b.*: ?|The actor died unexpectedly before")


def in_a_sentence(error: BaseException) -> str:
    """What became of a process or node, from the error that Ray raises for it."""
    error = _cause(error)
    text = str(error)
    if isinstance(error, ActorUnavailableError):
        return "its process does not answer any more"
    if "running low on memory" in text or "out of memory" in text.lower():
        used = _MEMORY.search(text)
        return f"Ray ended it because its node was out of memory{f' ({used[1]})' if used else ''}"
    if node := _NODE.search(text):
        return f"its node was lost ({node[1].strip()})"
    if "node has died" in text:
        return "its node was lost"
    if "connection error code" in text:
        return "its process was killed or has crashed, perhaps out of memory"
    if code := _EXIT_CODE.search(text):
        return f"its process has ended by itself, with exit code {code[1]}"
    if "owner has died" in text:
        return "Ray ended it, because the process that had started it was gone"
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _DETAIL.match(line)]
    return " ".join(lines)[:_MOST_CHARS] or "its process or node is gone"


class WorkerRecord(UserCallback):
    """Writes down what ended the workers, where only Ray saw it: into the attempt's folder, from the controller."""

    def __init__(self, run: RunFolder) -> None:
        """`run` is on a file system that the controller's node sees, as the workers do."""
        self._run = run

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called before the group is ended, with those that were seen so far."""
        number = self._run.latest_attempt()
        if number == 0:
            return
        events = EventLog(self._run.attempt(number), "controller")
        for rank, error in sorted(worker_exceptions.items()):
            # A rank that has met one of Ray's errors itself has written that down.
            if isinstance(_cause(error), RayError):
                events.add("lost", in_a_sentence(error), how=GONE, rank=rank)
            else:
                follows = follows_from_a_loss(error)
                events.add("lost", describe_error(error), how=RAISED, rank=rank, follows=follows)


def _cause(error: BaseException) -> BaseException:
    """The error inside what Ray Train has put around it."""
    for name in ("health_check_failure", "controller_failure", "cause"):
        inner = getattr(error, name, None)
        error = inner if isinstance(inner, BaseException) else error
    return error
