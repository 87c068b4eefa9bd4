"""A request for a chat completion, and what is read from its answer: nothing in it is believed unseen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.printable import printable, shortened
from sft.schema import THOUGHT_FIELDS, THOUGHT_START
from sft.strict_json import not_too_deep, without_halves
from sft.url_secrets import without_secrets

_MOST_STOPS = 4
"""What OpenAI's interface allows."""
_SHOWN_CHARS = 200
_MOST_TOKENS = 1 << 40
"""A larger number counts nothing."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked. Two with the same content are the same request."""

    key: str
    """For whom the reply is; the server does not see it."""
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    tools: Sequence[Mapping[str, Any]] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    """Texts that end an answer; the first four are sent."""
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer is to fit, for servers that offer this."""

    def content(self, structured: bool = True) -> dict[str, Any]:
        """What is sent, without the model."""
        content: dict[str, Any] = {
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }
        if self.tools:
            content["tools"] = list(self.tools)
        if self.seed is not None:
            content["seed"] = self.seed
        if self.stop:
            content["stop"] = list(self.stop)[:_MOST_STOPS]
        if self.schema is not None and structured:
            shape = {"name": "answer", "schema": dict(self.schema), "strict": True}
            content["response_format"] = {"type": "json_schema", "json_schema": shape}
        return content

    def read(self, body: bytes) -> "ChatReply":
        """The answer in the body of a response; see `read_reply`."""
        return read_reply(body, self.max_tokens)


@dataclass(frozen=True, slots=True)
class ChatReply:
    """An answer of the server."""

    text: str
    """May be empty: a model can end its answer at once."""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """Names and arguments, which are JSON if the model wrote such."""
    stopped: bool = True
    """Whether the model ended it; False if it was cut at `max_tokens`, or where the context ended."""
    num_tokens: int | None = None
    """As the server counts; None if it does not say."""
    num_prompt_tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of a line."""
        return asdict(self)


def read_kept_reply(content: Mapping[str, Any]) -> ChatReply:
    """The inverse of `as_json`."""
    return ChatReply(**{**content, "tool_calls": tuple((name, given) for name, given in content["tool_calls"])})


@dataclass(frozen=True, slots=True)
class NoReply:
    """Why a request has no answer."""

    reason: str
    is_billed: bool = False
    """Whether the server has begun to answer it (status 200): it may have to be paid, though it is of no use."""
    num_tokens: int | None = None
    """As in `ChatReply`."""
    num_prompt_tokens: int | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the server says what it has taken: then it was answered, and has to be paid."""
        return self.is_billed and self.num_tokens is not None and self.num_prompt_tokens is not None


class ReplyError(ValueError):
    """What the server sent is no answer; the text is the reason."""


def read_reply(body: bytes, max_tokens: int) -> ChatReply:
    """The answer in the body of a response.

    Raises:
        ReplyError: it is not what OpenAI's interface describes, or contradicts itself or the request.
    """
    content = json_object(body)
    choices = content.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        error = content.get("error")
        raise ReplyError(f"an error instead of an answer: {quoted(error)}" if error else "an answer without choices")
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, Mapping):
        raise ReplyError("a choice without a message")
    calls, text = _tool_calls(message.get("tool_calls")), message.get("content")
    if finish == "content_filter":
        raise ReplyError("the server's filter held the answer back")
    if finish not in ("stop", "length", "tool_calls", "function_call"):
        raise ReplyError(f"finish_reason is {quoted(finish)}, not stop, length or tool_calls")
    if finish == "tool_calls" and not calls:
        raise ReplyError("finish_reason is tool_calls, and there are none")
    if text is None and not calls:
        text = _thought_alone(message)
    if not isinstance(text, str | None):
        raise ReplyError(f"the content of the answer is no text: {quoted(text)}")
    num, num_prompt = _counts(content)
    if num is not None and num > max_tokens:
        raise ReplyError(f"{num:,} tokens were written, and at most {max_tokens:,} were asked for")
    if num == 0 and (text or calls):
        num = None
    return ChatReply(without_halves(text or ""), calls, finish != "length", num, num_prompt)


def no_reply(reason: str, body: bytes | None = None) -> NoReply:
    """What is known of an answer of no use; `body`: what came of it, if the server has begun to answer."""
    if body is None:
        return NoReply(reason)
    try:
        return NoReply(reason, True, *_counts(json_object(body)))
    except ReplyError:
        return NoReply(reason, is_billed=True)


def _thought_alone(message: Mapping[str, Any]) -> str:
    """The thought that a server has taken out of a text which was cut in it."""
    thoughts = (message.get(name) for name in THOUGHT_FIELDS)
    thought = next((one for one in thoughts if isinstance(one, str) and one.strip()), None)
    if thought is None:
        raise ReplyError("an answer without text")
    return THOUGHT_START + thought


def read_models(body: bytes) -> list[str]:
    """The names in the answer of `/v1/models`; none if it holds no such list."""
    try:
        data = json_object(body).get("data")
    except ReplyError:
        return []
    named = [model.get("id") for model in data if isinstance(model, Mapping)] if isinstance(data, list) else []
    return [name for name in named if isinstance(name, str)]


def quoted(value: Any) -> str:
    """A short form of what a server sent, for messages."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(shortened(printable(without_secrets(text)), _SHOWN_CHARS))


def json_object(body: bytes) -> Mapping[str, Any]:
    """The JSON object in a body.

    Raises:
        ReplyError: there is none.
    """
    text = body.decode("utf-8-sig", errors="replace")
    try:
        content = not_too_deep(json.loads(text), text)
    except (ValueError, RecursionError):
        raise ReplyError(f"what came is no JSON: {quoted(text[: 2 * _SHOWN_CHARS])}" if text else "nothing") from None
    if not isinstance(content, Mapping):
        raise ReplyError(f"what came is no JSON object: {quoted(text[: 2 * _SHOWN_CHARS])}")
    return content


def _tool_calls(calls: Any) -> tuple[tuple[str, str], ...]:
    found = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        given = function.get("arguments") if isinstance(function, Mapping) else None
        if not isinstance(name, str):
            raise ReplyError(f"a tool call without a name: {quoted(call)}")
        found.append((name, given if isinstance(given, str) else json.dumps(given)))
    return tuple(found)


def _counts(content: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The tokens of the answer and of the prompt. A server that counts nothing may say 0, but no prompt is empty."""
    usage = content.get("usage")
    return _count(usage, "completion_tokens"), _count(usage, "prompt_tokens") or None


def _count(usage: Any, name: str) -> int | None:
    num = usage.get(name) if isinstance(usage, Mapping) else None
    return num if isinstance(num, int) and not isinstance(num, bool) and 0 <= num <= _MOST_TOKENS else None
