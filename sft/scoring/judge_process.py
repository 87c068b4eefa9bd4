"""`python -m sft.scoring.judge_process SOCKET`: judges answers that `sft.scoring.judging` sends, until it hangs up.

Its memory is bounded, and the kernel ends it if a judgement goes on after the one who asked has gone: an alarm without
a handler needs no cooperation of what runs.
"""

import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

from sft.scoring.own_function import load_function
from sft.scoring.registry import Score, read_score
from sft.scoring.scorer import Verdict, answer_of, as_json, failure, question_of

_GRACE_SECONDS = 5.0


def main(descriptor: int) -> None:
    """Judge until nobody asks any more."""
    os.set_inheritable(descriptor, False)
    # What a scorer prints goes where errors do.
    os.dup2(2, 1)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as stream:
        task = json.loads(stream.readline())
        _bound_memory(task["memory_mib"] << 20)
        try:
            score = _loaded(task["form"])
        except Exception as error:
            _tell(connection, {"error": str(error)})
            return
        _tell(connection, {})
        for line in stream:
            signal.setitimer(signal.ITIMER_REAL, task["seconds"] + _GRACE_SECONDS)
            verdict = _judge(score, json.loads(line))
            signal.setitimer(signal.ITIMER_REAL, 0)
            _tell(connection, as_json(verdict))


def _loaded(form: Any) -> Score:
    score = read_score(form)
    # Here, as it takes seconds that are no answer's.
    if ":" in score.name:
        load_function(score.name)
    elif score.kind.package:
        importlib.import_module(score.kind.package)
    return score


def _judge(score: Score, content: dict[str, Any]) -> Verdict:
    try:
        return score.scorer.judge(answer_of(content["answer"]), question_of(content["question"]))
    except Exception as error:
        return failure(f"{type(error).__name__}: {error}")


def _bound_memory(num_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _tell(connection: socket.socket, content: dict[str, Any]) -> None:
    connection.sendall(json.dumps(content).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
