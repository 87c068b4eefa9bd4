"""Random conversations, and contents that are hard on whoever looks for an answer in a rendered text."""

from hypothesis import strategies as st

from sft.schema import Conversation, Message

PIECES = (
    *(" ", "  ", "\n", "\n\n", "\t", "a", "A", "ab", "the answer", "Hello.", "42", "```\ncode\n```"),
    *("é", "e\u0301", "ß", "数学", "🙂", "👩‍👩‍👧", "\u200b", "\u00a0", "مرحبا", "\x00"),
    *("user", "assistant", "system", "model", "assistant\n", "user\n", "<|im_start|>", "<|im_end|>\n"),
    *("<|im_end|>", "</s>", "<s>", "[INST]", " [/INST]", "<<SYS>>\n", "\n<</SYS>>\n\n", "<|eot_id|>"),
    *("<end_of_turn>\n", "<start_of_turn>model\n", "You are a helpful assistant.", "{{ messages }}", "{% raw %}"),
)
CONTENTS = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES), max_size=5).map("".join))
ANSWERS = CONTENTS.filter(lambda text: text.strip() != "")
THOUGHTS = st.sampled_from(["", "hm", "a", "so\n\nit is"])
# Few different texts, so that turns equal or contain one another.
REPEATED = st.sampled_from(["a", "aa", "a a", " a", "a ", "\na", "b"])


@st.composite
def conversations(draw: st.DrawFn, *, system: bool = True, thinks: bool = False) -> Conversation:
    """One to four turns of user and assistant, with a system turn before them where the template has one."""
    repeated = draw(st.booleans())
    contents, answers = (REPEATED, REPEATED) if repeated else (CONTENTS, ANSWERS)
    messages = [Message("system", draw(contents))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        answer = draw(answers)
        if thinks and draw(st.booleans()):
            answer = f"<think>\n{draw(THOUGHTS)}\n</think>\n\n{answer.lstrip()}"
        messages += [Message("user", draw(contents)), Message("assistant", answer)]
    return conversation(*messages)


def conversation(*messages: Message) -> Conversation:
    return Conversation(tuple(messages), task="t", source="s", index=0, where="s:1")


def turns(*contents: str) -> Conversation:
    """User and assistant in turn."""
    return conversation(*(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(contents)))
