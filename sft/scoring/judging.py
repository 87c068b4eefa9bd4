"""Judges answers by one score, so that a scorer that raises or never ends costs its example and not the run.

    Answer, Question ──Judging.judge──▶ Verdict
                        │ may hang:  a process of its own (sft.scoring.judge_process), ended at the limit, replaced
                        └ else:      here

A process and not a thread: a regular expression holds Python's lock while it runs, and only a kill ends it.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sft.errors import UserError
from sft.own_process import own_environment, own_module
from sft.printable import printable, shortened
from sft.progress import Tell
from sft.scoring.model_judge import ModelJudge
from sft.scoring.registry import Score, check_packages
from sft.scoring.sandbox_proof import prove_sandbox
from sft.scoring.scorer import Answer, Question, Verdict, as_json, failure, what_is_missing

_START_SECONDS = 120.0
_MAX_REPLY_BYTES = 1 << 20
_MAX_NOTE_CHARS = 300


@dataclass(frozen=True, slots=True)
class JudgingLimits:
    """What a scorer that may hang gets."""

    seconds: float = 10.0
    """For one answer."""
    memory_mib: int = 8192
    """Of address space, which is more than what is used."""
    most_in_vain: int = 5
    """After so many answers in a row without a verdict, the next ones wait for none."""


class Judging:
    """Judges by one score. For one thread at a time; another may have a `Judging` of its own."""

    def __init__(self, score: Score, limits: JudgingLimits | None = None, *, allow_code: bool = False) -> None:
        """Check that it can judge here.

        Raises:
            UserError: a package is missing, the user's function cannot be imported, or code is not allowed to run, or
                cannot be run safely here.
        """
        check_packages(score)
        if score.kind.runs_code:
            _check_code(score, allow_code)
        self.score = score
        self._limits = limits or JudgingLimits()
        self._process = JudgeProcess(score, self._limits) if score.kind.may_hang else None
        self._num_in_vain = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process:
            self._process.end()

    def check(self) -> None:
        """Look whether a server that judges can be asked.

        Raises:
            UserError: it cannot.
        """
        if isinstance(self.score.scorer, ModelJudge):
            self.score.scorer.check()

    def judge_all(
        self, answers: Sequence[tuple[Answer, Question]], kept: Path | None = None, tell: Tell = lambda: None
    ) -> Iterator[Verdict]:
        """The verdicts, in order.

        Args:
            answers: each with its question.
            kept: the file for what a server says, so that it is asked once; None keeps nothing.
            tell: called whenever there is progress.
        """
        if isinstance(self.score.scorer, ModelJudge):
            yield from map(_told, self.score.scorer.judge_all(answers, kept, tell))
            return
        for answer, question in answers:
            yield self.judge(answer, question)
            tell()

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """The verdict; a failed one, with the reason, where the scorer gives none."""
        if missing := what_is_missing(self.score.scorer.needs, question):
            return failure(missing)
        verdict = (
            self._judge_apart(answer, question) if self.score.kind.may_hang else self._judge_here(answer, question)
        )
        return _told(verdict)

    def _judge_here(self, answer: Answer, question: Question) -> Verdict:
        try:
            return self.score.scorer.judge(answer, question)
        except Exception as error:
            return failure(f"{type(error).__name__}: {error}")

    def _judge_apart(self, answer: Answer, question: Question) -> Verdict:
        if self._num_in_vain >= self._limits.most_in_vain:
            return failure(f"not judged: {self._limits.most_in_vain} answers in a row got no verdict")
        try:
            if self._process is None:
                self._process = JudgeProcess(self.score, self._limits)
            reply = self._process.ask({"answer": as_json(answer), "question": as_json(question)}, self._limits.seconds)
        except (OSError, ValueError) as error:  # a UserError too: it could be started once, and now no more
            self.close()
            self._process = None
            self._num_in_vain += 1
            return failure(str(error))
        self._num_in_vain = 0
        return Verdict(reply["scores"], reply["note"], reply["failed"])


def _told(verdict: Verdict) -> Verdict:
    """With a note that is short and fit to print."""
    return Verdict(verdict.scores, shortened(printable(verdict.note), _MAX_NOTE_CHARS), verdict.failed)


def _check_code(score: Score, allow_code: bool) -> None:
    if not allow_code:
        raise UserError(
            f"score: {score.name}: it runs code that the model writes, which is off unless it is asked for. Set "
            f"`allow_code: true` to run it in a sandbox, or choose another score."
        )
    prove_sandbox()


class JudgeProcess:
    """A process that judges one answer after the other."""

    def __init__(self, score: Score, limits: JudgingLimits) -> None:
        """Start it, and wait until it can judge.

        Raises:
            UserError: the scorer cannot be loaded there, with the reason.
        """
        here, there = socket.socketpair()
        self._socket = here
        with there:
            self._process = subprocess.Popen(
                own_module("sft.scoring.judge_process", str(there.fileno())),
                env=own_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        try:
            task = {"form": score.form, "seconds": limits.seconds, "memory_mib": limits.memory_mib}
            told = self.ask(task, _START_SECONDS)
        except (OSError, ValueError) as error:
            self.end()
            raise UserError(f"score: {score.name}: the process that judges did not start: {error}") from error
        if "error" in told:
            self.end()
            raise UserError(str(told["error"]))

    def ask(self, content: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a line and wait for one.

        Raises:
            OSError: there was no answer in time, or the process ended.
            ValueError: it is no JSON.
        """
        deadline = time.monotonic() + seconds
        reply = b""
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(json.dumps(content, default=str).encode() + b"\n")
            while not reply.endswith(b"\n"):
                self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
                part = self._socket.recv(1 << 16)
                reply += part
                if not part or len(reply) > _MAX_REPLY_BYTES:
                    raise ConnectionResetError
        except TimeoutError:
            raise TimeoutError(f"no verdict within {seconds:g} seconds") from None
        except ConnectionError:
            raise ConnectionError(f"the process that judges {self._end_in_words()}") from None
        return dict(json.loads(reply))

    def end(self) -> None:
        """Kill it, with all that it has started."""
        self._socket.close()
        # It leads a group of its own, which nobody has the number of as long as it was not waited for.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()

    def _end_in_words(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "said too much, or closed its connection"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
