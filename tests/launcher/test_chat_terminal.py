"""`sft chat` as a person uses it: a real terminal, whose keys are pressed and whose screen is read.

The chat is a fork of this process, which has imported everything.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import LlamaForCausalLM

import launcher.chat.opening
import launcher.chat.session  # noqa: F401  (else each fork imports it)
from launcher.cli import main
from sft.run_folder import RunFolder
from tests.launcher.talked_run import ANSWERS

CTRL_C, CTRL_D, ERASED = "\x03", "\x04", "\r\x1b[2K"
READY = "\x1b[?2004h> "
"""The prompt, where pasted lines are kept together."""
PASTED = "\x1b[200~{}\x1b[201~"
SLOW_SECONDS = 0.05
"""A token, where an answer may not end before a key is pressed, on however busy a machine."""


@pytest.fixture
def run(talked_run: RunFolder) -> RunFolder:
    return talked_run


class Terminal:
    """A chat in a terminal."""

    def __init__(self, pid: int, master: int) -> None:
        self.pid, self._master = pid, master
        self.seen = ""
        self.code: int | None = None
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """What came since the last call, up to this text, which has to come."""
        deadline = time.monotonic() + seconds
        while (found := self.seen.find(text, self._read_to)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen[self._read_to :]!r}"
            assert self._read(), f"it ended before {text!r}: {self.seen!r}"
        before, self._read_to = self.seen[self._read_to : found], found + len(text)
        return before

    def give_up_line(self) -> None:
        """Press Ctrl-C at the prompt, as a person would again if nothing comes.

        Python sees a signal there only while it waits for a key: one that comes while it shows the last key is seen
        with the next.
        """
        for _ in range(20):
            self.type(CTRL_C)
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline and self.seen.find(READY, self._read_to) < 0:
                assert self._read(), f"it ended: {self.seen!r}"
            if self.seen.find(READY, self._read_to) >= 0:
                break
        self.wait_for(READY)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def end(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it did not end: {self.seen[self._read_to :]!r}"
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            content = os.read(self._master, 1 << 16)
        except OSError:  # nobody has it open any more
            return False
        self.seen += content.decode(errors="replace")
        return bool(content)


@contextmanager
def chat(*arguments: object, columns: int = 100, slowly: bool = False) -> Iterator[Terminal]:
    """A chat that has loaded its models."""
    pid, master = pty.fork()
    if pid == 0:
        if slowly:
            register_module_forward_hook(wait_after_each_token)
        _talk([str(argument) for argument in arguments])
    terminal = Terminal(pid, master)
    terminal.resize(columns)
    try:
        terminal.wait_for("/help lists the commands.")
        terminal.wait_for(READY)
        yield terminal
    finally:
        if terminal.code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(master)


def wait_after_each_token(module: torch.nn.Module, *_: object) -> None:
    if isinstance(module, LlamaForCausalLM) and module.name_or_path:  # a loaded one, none on which something is tried
        time.sleep(SLOW_SECONDS)


def _talk(arguments: list[str]) -> None:
    """The life of the fork; never returns."""
    code = 99
    try:
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            os.environ.pop(name, None)
        os.environ["TERM"] = "xterm-256color"
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  (as at a start)
        torch.set_num_threads(1)
        code = main(["chat", *arguments])
        sys.stdout.flush()
    finally:
        os._exit(code)


def rows_of(seen: str) -> list[str]:
    """The rows as they stand in the end, without styles; those that were drawn again count once."""
    rows = [row.rpartition(ERASED)[2] for row in seen.split("\n")]
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", row).rstrip() for row in rows]


def test_two_models_answer_beside_each_other_and_each_has_its_own_memory(run: RunFolder) -> None:
    with chat(run.path, "--max-new-tokens", 40) as terminal:
        terminal.type("Say it long.\r")
        rows = rows_of(terminal.wait_for(READY))
        at = rows.index(next(row for row in rows if row.startswith("base ")))
        assert rows[at].split() == ["base", "│", "broad"]
        beside = [row.partition(" │ ") for row in rows[at + 1 :] if row]
        assert len(beside) > 2
        assert " ".join(right.strip() for _, _, right in beside).split() == ANSWERS["Say it long."].split()
        assert all(len(left) <= 48 for left, _, _ in beside)
        terminal.type("/system Be brief.\r")
        terminal.wait_for("system text: Be brief.")
        terminal.wait_for(READY)
        terminal.type("/again\r")
        terminal.wait_for("broad")
        terminal.wait_for(READY)
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def test_in_a_narrow_terminal_they_answer_one_after_the_other_and_it_may_be_resized(run: RunFolder) -> None:
    with chat(run.path, "--max-new-tokens", 8, columns=50) as terminal:
        terminal.type("Say it short.\r")
        rows = rows_of(terminal.wait_for(READY))
        assert "base" in rows
        assert rows[rows.index("broad") + 1] == "amber basin"
        terminal.resize(120)
        terminal.type("Say it short.\r")
        assert any(row.split() == ["base", "│", "broad"] for row in rows_of(terminal.wait_for(READY)))
        terminal.type("/quit\r")
        assert terminal.end() == 0


def test_ctrl_c_ends_the_answer_and_not_the_chat(run: RunFolder) -> None:
    with chat(run.path, "--model", "broad", "--max-new-tokens", 400, slowly=True) as terminal:
        terminal.type("Never stop.\r")
        terminal.wait_for("delta delta")
        terminal.type("what is typed meanwhile")
        terminal.type(CTRL_C)
        rows = rows_of(terminal.wait_for(READY))
        assert "(ended by Ctrl-C)" in rows
        assert "typed" not in "".join(rows)
        for _ in range(2):
            terminal.type("half a line")
            terminal.wait_for("half a line")
            terminal.give_up_line()
        terminal.type("/new\r")
        terminal.wait_for("a new conversation")
        terminal.wait_for(READY)
        terminal.type("Say it short.\r")
        terminal.wait_for("amber basin")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.end() == 143


def test_pasted_lines_are_one_question_and_no_key_reaches_the_screen_as_a_command(run: RunFolder) -> None:
    with chat(run.path, "--model", "broad", "--max-new-tokens", 4) as terminal:
        terminal.type(PASTED.format("one\ntwo\n" + "three " * 700) + "\r")
        terminal.wait_for("begin again with /new, or ask something shorter")
        terminal.wait_for(READY)
        terminal.type("a\x16\x1bb\r")
        terminal.wait_for("the control character U+001B")
        terminal.wait_for(READY)
        terminal.type("Say it \\\r")
        terminal.wait_for("  ")
        terminal.type("short.\r")
        terminal.wait_for("amber")
        terminal.wait_for(READY)
        terminal.type("/tag a\r")
        terminal.wait_for("Each prompt has the task tag 'Task type: a'.")
        terminal.wait_for(READY)
        terminal.type("/tag b\r")
        terminal.wait_for("Task type: b")
        terminal.wait_for(READY)
        terminal.type("/tag c\r")
        terminal.wait_for("No task of the run is called c: there are a, b.")
        terminal.wait_for(READY)  # before it, Ctrl-D is a key of the terminal and not of the prompt
        terminal.type(CTRL_D)
        assert terminal.end() == 0
