"""The task tag of a chat: which line of the prompt says what kind of task a question is, and what is known of it."""

from contextlib import suppress
from dataclasses import replace

from sft.atomic_files import read_json
from sft.chat.prompts import Setting
from sft.config import SftConfig
from sft.data.task_tag import tag_text
from sft.errors import UserError
from sft.run_folder import RunFolder

_MOST_TASKS = 12


def tasks_of(run: RunFolder) -> tuple[str, ...]:
    """The tasks of a run, the largest first; none before it is planned."""
    found: dict[str, None] = {}
    for folder in run.stage_folders():
        with suppress(OSError, ValueError, LookupError):  # it only helps to find a name
            found |= dict.fromkeys(row["task"] for row in read_json(folder.balance)["tasks"])
    return tuple(found)


def tagged(
    config: SftConfig, setting: Setting, tasks: tuple[str, ...]
) -> tuple[Setting, tuple[str, ...], tuple[str, ...]]:
    """The setting with its tag: the one that is named, or that of a run with one task; with notes and warnings.

    Raises:
        UserError: a tag is named, and the config has none.
    """
    tag, task = config.data.task_tag, setting.task
    if task is not None:
        if tag is None:
            raise UserError(
                "No task tag is known: the config has no data.task_tag. To set one all the same, say which: "
                "data.task_tag.text='Task type: {task}'"
            )
        setting = replace(setting, tagging="always")
        unknown = f"No task of the run is called {task}: there are {_listed(tasks)}."
        note = f"Each prompt has the task tag {tag_text(tag, task)!r}."
        return setting, (note,), (unknown,) if tasks and task not in tasks else ()
    if tag is None:
        return setting, (), ()
    if len(tasks) == 1:
        setting = replace(setting, task=tasks[0], tagging=config.evaluate.tag)
        which = {"as_trained": f"all but {tag.dropout:.0%} of the prompts have", "always": "each prompt has"}
        how = which.get(config.evaluate.tag, "no prompt has")
        return setting, (f"As in training, {how} the task tag {tag_text(tag, tasks[0])!r}.",), ()
    shown = f": {_listed(tasks)}" if tasks else ""
    share = f"{tag.dropout:.0%} of the prompts in training had none" if tag.dropout else "all in training had one"
    return setting, (f"No prompt has a task tag ({share}). /tag NAME names a task{shown}.",), ()


def _listed(tasks: tuple[str, ...]) -> str:
    more = f" and {len(tasks) - _MOST_TASKS} more" if len(tasks) > _MOST_TASKS else ""
    return ", ".join(tasks[:_MOST_TASKS]) + more
