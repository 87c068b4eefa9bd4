"""The replies of a served model: it gets the turns, and writes the prompt in its own form."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from sft.answering.writing import Style
from sft.chat.reply import Piece, Reply
from sft.data.tokenization import ExampleTokenizer
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from sft.questions.prompts import Prompt
from sft.thoughts import Marks, in_usual_form

_LOOK_SECONDS = 0.1
_PATIENCE = Patience(at_once=1, retries=2, most_in_vain=1)
"""Somebody waits for it."""


@dataclass(frozen=True)
class ServedModel:
    """Writes replies with the model of an endpoint."""

    endpoint: Endpoint
    style: Style
    max_new_tokens: int
    tokenizer: ExampleTokenizer

    def reply(self, prompt: Prompt, key: str) -> Reply:
        """The reply to the turns of a prompt."""
        style = self.style
        stop = [*filter(None, (self.tokenizer.text_of([stop]) for stop in style.stop_ids))]
        return _AskedReply(
            self.endpoint,
            ChatRequest(
                key, prompt.messages, self.max_new_tokens, (), style.temperature, style.top_p, style.seed, stop
            ),
            self.tokenizer.marks,
        )


class _AskedReply:
    """`Reply` of a server, in one piece."""

    def __init__(self, endpoint: Endpoint, request: ChatRequest, marks: Marks) -> None:
        self._endpoint, self._request, self._marks = endpoint, request, marks
        self.text, self.note, self.has_failed = "", "ended by Ctrl-C", False

    def pieces(self) -> Iterator[Piece]:
        """See `Reply`."""
        found: SimpleQueue[ChatReply | NoReply] = SimpleQueue()
        # One whose answer nobody wants any more ends by its own limit of time, or with the process.
        threading.Thread(target=self._ask, args=(found,), name="endpoint", daemon=True).start()
        while True:
            try:
                outcome = found.get(timeout=_LOOK_SECONDS)
                break
            except Empty:
                yield Piece("")
        if isinstance(outcome, NoReply):
            self.note, self.has_failed = outcome.reason, True
            return
        self.text = in_usual_form(outcome.text.strip(), self._marks)
        self.note = "" if outcome.stopped else f"cut after {self._request.max_tokens:,} tokens"
        if not self.text:
            self.note = "a call of a tool" if outcome.tool_calls else "an empty answer"
        yield Piece(self.text)

    def end(self) -> None:
        """See `Reply`."""

    def _ask(self, found: "SimpleQueue[ChatReply | NoReply]") -> None:
        try:
            client = EndpointClient(self._endpoint, _PATIENCE)
            client.chat_all([self._request], lambda request, outcome: found.put(outcome))
        except EndpointError as error:
            found.put(NoReply(str(error)))
