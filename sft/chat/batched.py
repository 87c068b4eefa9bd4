"""A loaded model answers requests for chat completions, as a server would: many at once, in batches of like length.

    ChatRequest ──template──▶ tokens ──sorted by length──▶ batches ──▶ ChatReply, with exact counts of tokens

What is drawn for a request depends on its key alone. Rounding depends on the batch, too: where two tokens are equally
probable to rounding, another batch may get the other one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from sft.answering.decoding import Decoding, try_decoding
from sft.answering.rounds import BatchSize, Lengths, rounds_of
from sft.answering.whole_model import WholeModel, batch_size
from sft.answering.writing import Prompted, Style, Written, answering, write_answers
from sft.chat.prompts import ChatPrompts, Setting
from sft.chat.user_turns import UserTurns
from sft.config import SftConfig
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.errors import RecordError
from sft.model.positions import num_positions
from sft.progress import Tell
from sft.ranks.ranks import OneRank
from sft.scoring.call_form import CALL_END, CALL_START, Expected, in_usual_calls
from sft.scoring.tool_call import calls_in
from sft.thoughts import whole_text
from sft.world import World

_CALL = re.compile(f"{re.escape(CALL_START)}.*?{re.escape(CALL_END)}", re.DOTALL)


class _Asked(NamedTuple):
    """A request that can be written."""

    number: int
    request: ChatRequest
    ids: tuple[int, ...]
    text: str
    """Of the prompt."""
    num_new: int
    stop_ids: tuple[int, ...]


class BatchedModel:
    """Answers with one model on one device."""

    def __init__(self, config: SftConfig, device: str) -> None:
        """Load the model of the config.

        Raises:
            UserError: it cannot be loaded, or its template cannot be used.
        """
        self._prompts, self._user_turns = ChatPrompts(config), UserTurns(config.model)
        # What is written does not depend on the layout of training.
        train = config.train.model_copy(update={"packing": "one_example"})
        world = World(device=device)
        whole = WholeModel(config.model_copy(update={"train": train}), config.model.path, world)
        options = {"trust_remote_code": True} if config.model.trust_remote_code else {}
        self._model, self._device = whole.hf_model, torch.device(device)
        self._decoding: Decoding = try_decoding(self._model.config, **options)
        self._size: BatchSize = batch_size(self._model, OneRank(world))

    def answers(self, requests: Sequence[ChatRequest], tell: Tell = lambda: None) -> list[ChatReply | NoReply]:
        """The answers, in the order of the requests. What cannot be asked has none; `tell` is called for each token."""
        found: dict[int, ChatReply | NoReply] = {}
        alike: dict[tuple[Any, ...], list[_Asked]] = {}
        for number, request in enumerate(requests):
            asked = self._asked(number, request)
            if isinstance(asked, NoReply):
                found[number] = asked
            else:
                alike.setdefault((request.temperature, request.top_p, asked.stop_ids), []).append(asked)
        for (temperature, top_p, stop_ids), of_style in alike.items():
            style = Style(stop_ids, temperature, top_p)
            lengths = [Lengths(len(asked.ids), asked.num_new) for asked in of_style]
            for [rows] in rounds_of(lengths, 1, self._size, style.seed, self._decoding.pads):
                batch = [of_style[i] for i in rows]
                for asked, written in zip(batch, self._write(batch, style, tell), strict=True):
                    found[asked.number] = self._reply(asked, written)
        return [found[number] for number in range(len(requests))]

    def _asked(self, number: int, request: ChatRequest) -> _Asked | NoReply:
        try:
            if asks_for_user(request.messages):
                user = self._user_turns.write(request.messages[:-1])
                ids, text, stops = user.ids, "", (user.end_id, *self._prompts.stop_ids)
            else:
                prompt = self._prompts.write(request.messages, Setting(), request.tools)
                ids, text, stops = prompt.ids, prompt.text, self._prompts.stop_ids
        except RecordError as error:
            return NoReply(f"the prompt cannot be written: {error}")
        window = num_positions(self._model.config)
        room = request.max_tokens if window is None else min(request.max_tokens, window - len(ids))
        if room < 1:
            return NoReply(f"the prompt fills the model's window of {window:,} tokens")
        return _Asked(number, request, ids, text, room, tuple(dict.fromkeys(stops)))

    def _write(self, batch: Sequence[_Asked], style: Style, tell: Tell) -> list[Written]:
        rows = [Prompted(asked.request.key, asked.ids, asked.num_new) for asked in batch]
        with answering(self._model, self._decoding.attention):
            return write_answers(self._model, rows, style, self._device, self._decoding.caches, tell=tell)

    def _reply(self, asked: _Asked, written: Written) -> ChatReply:
        tokenizer, request = self._prompts.tokenizer, asked.request
        own = written.ids[:-1] if written.stopped else written.ids
        calls: tuple[tuple[str, str], ...] = ()
        if asks_for_user(request.messages):
            text = tokenizer.words_of(own, with_marks=False)
        else:
            text = whole_text(asked.text, tokenizer.words_of(own), thinks=True, marks=tokenizer.marks)
        if request.tools:
            usual = in_usual_calls(text, tokenizer.call_form, Expected(tools=request.tools))
            if calls := tuple((call.name, json.dumps(call.arguments)) for call in calls_in(usual)):
                text = _CALL.sub("", usual).strip()
        return ChatReply(text, calls, written.stopped, len(written.ids), len(asked.ids))


def asks_for_user(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request asks for a user's turn: its last message is one without content."""
    return bool(messages) and messages[-1]["role"] == "user" and "content" not in messages[-1]
