"""A line in the prompt that names the task in natural language, such as "Task type: summarization".

It stands in the system turn. Whether a prompt goes without is decided by the prompt alone: equal prompts are treated
equally, in every run, in training and in evaluation, and whatever the order of the records is.
"""

from dataclasses import replace

from sft.config import TaskTagConfig
from sft.schema import Conversation, Message
from sft.seeds import derive_seed


def add_task_tag(conversation: Conversation, tag: TaskTagConfig, key: int) -> Conversation:
    """The conversation with the tag in its system turn, or as it is where its prompt goes without.

    Args:
        conversation: its task is named; a system turn that it has comes first.
        tag: what the tag says, and how many prompts go without.
        key: the hash of the prompt.
    """
    if is_dropped(tag, key):
        return conversation
    text = tag_text(tag, conversation.task)
    first, *others = conversation.messages
    if first.role != "system":
        return replace(conversation, messages=(Message("system", text), first, *others))
    content = f"{first.content}\n\n{text}" if first.content.strip() else text
    return replace(conversation, messages=(replace(first, content=content), *others))


def tag_text(tag: TaskTagConfig, task: str) -> str:
    """What the tag says of a task."""
    return tag.text.replace("{task}", tag.texts.get(task, task.replace("_", " ")))


def is_dropped(tag: TaskTagConfig, key: int) -> bool:
    """Whether the prompt with this hash goes without a tag."""
    # Not the key itself: by it the held-out share is chosen, and tagged prompts should be on both sides alike.
    return derive_seed(key, "task_tag") < tag.dropout * 2**63
