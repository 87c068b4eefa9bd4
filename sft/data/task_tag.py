"""A line in the prompt that names the task in natural language, such as "Task type: summarization".

It is in the system turn. The prompt alone decides whether it goes without a tag: equal prompts are treated equally, in
every run, in training and in evaluation, whatever the order of the records.
"""

from dataclasses import replace

from sft.config import TaskTagConfig
from sft.schema import Conversation, Message
from sft.seeds import derive_seed


def add_task_tag(conversation: Conversation, tag: TaskTagConfig, key: int) -> Conversation:
    """The conversation with the tag in its system turn; unchanged if its prompt goes without a tag.

    Args:
        conversation: names its task; its system turn, if any, comes first.
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
    """The text of the tag for a task."""
    return tag.text.replace("{task}", tag.texts.get(task, task.replace("_", " ")))


def is_dropped(tag: TaskTagConfig, key: int) -> bool:
    """Whether the prompt with this hash goes without a tag."""
    # Not the key itself: it decides the held-out share, and tagged prompts should be on both sides alike.
    return derive_seed(key, "task_tag") < tag.dropout * 2**63
