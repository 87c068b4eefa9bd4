"""A chat: what the user types is asked, or done; each model goes on from its own replies."""

import sys
from collections.abc import Iterable

from rich.console import Console

from launcher.chat import commands
from launcher.chat.commands import Command
from launcher.chat.keyboard import Keyboard
from launcher.chat.opening import Opened
from launcher.chat.showing import Named, show_replies, write_replies
from launcher.console import say_error, styled
from launcher.exit_codes import DONE, FAILED
from sft.chat.speaker import Turn
from sft.errors import UserError


class Session:
    """A chat with models that are loaded."""

    def __init__(self, opened: Opened, keyboard: Keyboard, console: Console) -> None:
        self._config, self._speakers, self._tasks = opened.config, opened.speakers, opened.tasks
        self._setting, self._opened = opened.setting, opened
        self._keyboard, self._console = keyboard, console
        self._question = ""
        self._number, self._tries = 0, 0
        self._has_failed = False

    def run(self) -> int:
        """Talk until the user, or the pipe, ends; returns the exit code."""
        if self._keyboard.is_person:
            self._say([*self._opened.notes, *self._opened.warnings])
            self._say(["/help lists the commands."])
        else:
            self._complain(self._opened.warnings)
        while (text := self._keyboard.text()) is not None:
            if not text.strip():
                continue
            try:
                command = commands.read_command(text)
                if command is None:
                    self._ask(text, self._number + 1)
                elif not self._obey(command):
                    break
            except UserError as error:
                self._has_failed = True
                self._complain([str(error)])
        return FAILED if self._has_failed and not self._keyboard.is_person else DONE

    def _obey(self, command: Command) -> bool:
        """Do what a command says; returns whether the chat goes on."""
        said: list[str] = []
        match command.name:
            case "/quit":
                return False
            case "/new":
                for speaker in self._speakers:
                    speaker.turns.clear()
                self._question, said = "", ["a new conversation"]
            case "/again":
                self._ask_again()
            case "/system":
                self._setting, said = commands.with_system(self._setting, command.text)
            case "/tag":
                self._setting, said = commands.with_tag(self._config, self._setting, command.text, self._tasks)
            case "/save":
                said = [commands.save(self._speakers, self._setting, command.text)]
            case _:
                width = max(map(len, commands.HELP)) + 2
                said = [f"{usage:{width}}{what}" for usage, what in commands.HELP.items()]
                said += commands.HINTS
        if self._keyboard.is_person:
            self._say(said)
        return True

    def _ask_again(self) -> None:
        if not self._question:
            raise UserError("nothing was asked yet")
        for speaker in self._speakers:
            speaker.forget(self._number)
        if self._keyboard.is_person:
            self._say([self._question])
        self._ask(self._question, self._number)

    def _ask(self, question: str, number: int) -> None:
        self._tries = self._tries + 1 if number == self._number else 0
        self._question, self._number = question, number
        key = f"chat/{number}/{self._tries}"
        replies = [Named(s.name, s.ask(question, self._setting, key)) for s in self._speakers]
        if self._keyboard.is_person:
            beside = not any(speaker.is_served for speaker in self._speakers)
            show_replies(replies, self._console, self._keyboard.stopped, beside)
        else:
            write_replies(replies, self._console, lambda note: self._complain([note]))
        for speaker, named in zip(self._speakers, replies, strict=True):
            self._has_failed |= named.reply.has_failed
            if named.reply.has_failed or not named.reply.text:
                continue
            if why_not := speaker.keep(Turn(number, question, named.reply.text), self._setting):
                self._complain([f"{speaker.name} will not see this turn again: {why_not}"])

    def _say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._console.print(styled("[dim]{}[/]", line))

    def _complain(self, lines: Iterable[str]) -> None:
        if self._keyboard.is_person:
            for line in lines:
                self._console.print(styled("[yellow]{}[/]", line))
            return
        sys.stdout.flush()
        for line in lines:
            say_error(line)
