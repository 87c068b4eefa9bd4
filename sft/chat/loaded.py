"""The replies of a model that is loaded in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from sft.answering.decoding import Decoding, try_decoding
from sft.answering.streaming import AnswerStream, GrowingText
from sft.answering.whole_model import WholeModel
from sft.answering.writing import Prompted, Style, Take, Written, answering, write_one
from sft.chat.prompts import ChatPrompts
from sft.chat.reply import Piece, Reply, ThoughtMarks, Unanswered
from sft.config import SftConfig
from sft.errors import UserError
from sft.model.positions import num_positions
from sft.questions.prompts import Prompt
from sft.thoughts import Marks, opens_thought, whole_text
from sft.world import World

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""How torch begins to say that a CPU's memory is full: it has no class of errors for that."""


@dataclass(frozen=True)
class LoadedModel:
    """Writes replies with one model."""

    hf_model: Any
    prompts: ChatPrompts
    style: Style
    max_new_tokens: int
    device: torch.device
    decoding: Decoding

    def reply(self, prompt: Prompt, key: str) -> Reply:
        """The reply to a prompt; `key` decides what is drawn for it."""
        room = _Room.of(len(prompt.ids), self.max_new_tokens, num_positions(self.hf_model.config))
        if room.num_tokens < 1:
            return Unanswered(
                f"the conversation has {len(prompt.ids):,} tokens, and the model has room for {room.window:,}: "
                "begin again with /new, or ask something shorter"
            )
        prompted = Prompted(key, prompt.ids, room.num_tokens)
        text = GrowingText(self.prompts.tokenizer.words_of)
        return _WrittenReply(
            AnswerStream(partial(self._write, prompted)), text, room, prompt.text, self.prompts.tokenizer.marks
        )

    def _write(self, prompted: Prompted, take: Take) -> Written:
        with answering(self.hf_model, self.decoding.attention):
            return write_one(self.hf_model, prompted, self.style, self.device, self.decoding.caches, take)


def load_model_to_talk(
    config: SftConfig, path: str, prompts: ChatPrompts, device: str, decoding: Decoding | None = None
) -> LoadedModel:
    """The model at `path`, loaded as `sft evaluate` loads it.

    Args:
        config: the run's, with how answers are drawn and how long they may be.
        path: a folder or Hub id.
        prompts: those of the model.
        device: where it goes.
        decoding: what is known of its class. Default: it is tried.

    Raises:
        UserError: it cannot be loaded, or there is no room for it.
    """
    # What is written does not depend on the layout of training.
    train = config.train.model_copy(update={"packing": "one_example"})
    with _memory_in_words(f"There is no room for {path} on {device}. Talk to one model, with --model NAME."):
        loaded = WholeModel(config.model_copy(update={"train": train}), path, World(device=device)).hf_model
    options = {"trust_remote_code": True} if config.model.trust_remote_code else {}
    evaluate = config.evaluate
    style = Style(prompts.stop_ids, evaluate.temperature, evaluate.top_p, config.run.seed)
    decoding = decoding or try_decoding(loaded.config, **options)
    return LoadedModel(loaded, prompts, style, evaluate.max_new_tokens, torch.device(device), decoding)


class _Room(NamedTuple):
    """How long a reply may become."""

    num_tokens: int
    is_of_window: bool
    """Whether the model's window ends it, rather than the setting."""
    window: int

    @classmethod
    def of(cls, num_prompt_tokens: int, max_new_tokens: int, window: int | None) -> "_Room":
        if window is None or num_prompt_tokens + max_new_tokens <= window:
            return cls(max_new_tokens, False, window or 0)
        return cls(window - num_prompt_tokens, True, window)


class _WrittenReply:
    """`Reply` of a loaded model."""

    def __init__(self, stream: AnswerStream, text: GrowingText, room: _Room, prompt: str, marks: Marks) -> None:
        self._stream, self._text, self._room, self._prompt, self._marks = stream, text, room, prompt, marks
        self._split = ThoughtMarks(opens_thought(prompt, marks), marks).split
        self.has_failed, self.note = False, "ended by Ctrl-C"

    @property
    def text(self) -> str:
        """See `Reply`."""
        whole = self._text.whole
        return whole_text(self._prompt, whole, thinks=True, marks=self._marks) if whole else whole

    def pieces(self) -> Iterator[Piece]:
        """See `Reply`."""
        try:
            with _memory_in_words("no memory is left for so long a conversation: begin again with /new"):
                for token in self._stream:
                    new = self._text.add(token)
                    yield Piece("")
                    yield from self._split(new)
        except UserError as error:
            self.has_failed, self.note = True, str(error)
            return
        yield from self._split(self._text.rest(), is_last=True)
        self.note = self._reason()

    def end(self) -> None:
        """See `Reply`."""
        self._stream.close()

    def _reason(self) -> str:
        if self._stream.stopped:
            return "" if self._text.whole else "an empty answer"
        if self._room.is_of_window:
            return f"cut: the model's window of {self._room.window:,} tokens is full; /new begins again"
        return f"cut after {self._room.num_tokens:,} tokens; --max-new-tokens allows more"


@contextmanager
def _memory_in_words(message: str) -> Iterator[None]:
    """Turns a lack of memory into a `UserError` with this message."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise UserError(message) from None
    except RuntimeError as error:
        if _NO_MEMORY not in str(error):
            raise
        raise UserError(message) from None
