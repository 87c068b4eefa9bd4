"""The commands within a chat: a line that begins with a slash."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from launcher.chat.tags import tagged
from sft.absolute_paths import local_path
from sft.chat.prompts import Setting
from sft.chat.speaker import Speaker
from sft.config import SftConfig
from sft.errors import UserError
from sft.json_lines import append_line
from sft.printable import counted

HELP = {
    "/new": "begin again: the models forget what was said",
    "/again": "ask the last question again, with the present settings",
    "/system TEXT|off": "the system text, from the next question on",
    "/tag NAME|off": "the task that the task tag names, from the next question on",
    "/save FILE.jsonl": "add the conversations to a file, as records that can be trained on",
    "/help": "list the commands",
    "/quit": "end, as Ctrl-D does",
}
"""Command → what it does."""
HINTS = (
    "A line that ends in a backslash goes on with the next one. Ctrl-C ends an answer.",
    "A question that begins with a slash begins with a blank before it.",
)
_NAMES = [usage.split()[0] for usage in HELP]
OFF = "off"


class Command(NamedTuple):
    """A command, and the text behind it."""

    name: str
    text: str


def read_command(line: str) -> Command | None:
    """The command of a line; None for a question.

    Raises:
        UserError: there is no such command.
    """
    if not line.startswith("/"):
        return None
    name, _, text = line.partition(" ")
    name = name.strip()
    if name not in _NAMES:
        raise UserError(f"there is no command {name}. There are {', '.join(_NAMES)}. {HINTS[1]}")
    return Command(name, text.strip())


def with_system(setting: Setting, text: str) -> tuple[Setting, list[str]]:
    """The setting after `/system TEXT`, and what to say."""
    if text:
        setting = replace(setting, system="" if text == OFF else text)
    return setting, [f"system text: {setting.system}" if setting.system else "no system text but that of the template"]


def with_tag(config: SftConfig, setting: Setting, text: str, tasks: tuple[str, ...]) -> tuple[Setting, list[str]]:
    """The setting after `/tag NAME`, and what to say.

    Raises:
        UserError: the config has no tag.
    """
    if text == OFF:
        return replace(setting, task=None, tagging="never"), ["no task tag"]
    if not text and setting.tagging == "never":
        return setting, ["no task tag"]
    if not text:
        as_named = setting if setting.tagging == "always" else replace(setting, task=None)
        return setting, [*tagged(config, as_named, tasks)[1]]
    setting, notes, warnings = tagged(config, replace(setting, task=" ".join(text.split())), tasks)
    return setting, [*notes, *warnings]


def save(speakers: list[Speaker], setting: Setting, text: str) -> str:
    """Add the conversations to a file; returns what was done.

    Raises:
        UserError: nothing was said yet, or the file cannot be written.
    """
    if not text:
        raise UserError("name the file: /save FILE.jsonl")
    path = local_path(text)
    if path.suffix != ".jsonl":
        raise UserError(f"{path} is not called *.jsonl, by which data is known: /save {Path(text).stem}.jsonl")
    records = [record for record in (speaker.record(setting) for speaker in speakers) if record is not None]
    if not records:
        raise UserError("nothing was said yet")
    try:
        for record in records:
            append_line(path, record, by_people=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    return f"{counted(len(records), 'conversation')} added to {path}"
