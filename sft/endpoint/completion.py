"""A request to go on from token ids, as vLLM takes it beside OpenAI's completions, and what is read from its answer.

So a model gets the very prompt of training, and it is known at which token it stopped. The log-probabilities of the
prompt's own tokens give the likelihood of an option that stands at its end.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sft.endpoint.chat import ReplyError, json_object, quoted

_MOST = sys.float_info.max
"""A whole number of JSON may be larger, and no float then."""
_NUM_IDS = 1 << 31
"""Token ids are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked."""

    key: str
    """For whom the reply is; the server does not see it."""
    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop_ids: tuple[int, ...] = ()
    """Tokens that end an answer; no others do."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    with_prompt: bool = False
    """Whether the reply is to say how probable each token of the prompt is."""

    def content(self) -> dict[str, Any]:
        """What is sent, without the model."""
        content: dict[str, Any] = {
            "prompt": list(self.prompt_ids),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop_token_ids": list(self.stop_ids),
            "ignore_eos": True,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        if self.with_prompt:
            content["prompt_logprobs"] = 0
        return content if self.seed is None else {**content, "seed": self.seed}

    def read(self, body: bytes) -> "Completion":
        """The answer in the body of a response.

        Raises:
            ReplyError: it is not what vLLM describes, or contradicts itself or the request.
        """
        choice = _choice(json_object(body))
        sent = choice.get("prompt_token_ids")
        if sent is not None and sent != list(self.prompt_ids):
            raise ReplyError("the server answers another prompt than the one that was sent")
        ids = _ids(choice.get("token_ids"))
        if len(ids) > self.max_tokens:
            raise ReplyError(f"{len(ids):,} tokens were written, and at most {self.max_tokens:,} were asked for")
        finish, stopped = choice.get("finish_reason"), bool(ids) and ids[-1] in self.stop_ids
        if finish not in ("stop", "length"):
            raise ReplyError(f"finish_reason is {quoted(finish)}, not stop or length")
        if any(token in self.stop_ids for token in ids[:-1]) or (finish == "stop" and not stopped):
            raise ReplyError("the answer does not end at a token that was to end it")
        if not stopped and len(ids) < self.max_tokens:
            raise ReplyError(f"the answer was cut at {len(ids):,} of {self.max_tokens:,} tokens")
        of_prompt = _log_probs(choice.get("prompt_logprobs"), self.prompt_ids) if self.with_prompt else ()
        return Completion(ids, stopped, of_prompt)


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer of the server."""

    ids: tuple[int, ...]
    """The tokens that were written, with the one at which it stopped."""
    stopped: bool
    """Whether the model ended it."""
    prompt_log_probs: tuple[float, ...] = ()
    """Of each token of the prompt, in nats, given those before it; 0 for the first, which nothing says anything of."""


def _choice(content: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = content.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    error = content.get("error")
    raise ReplyError(f"an error instead of an answer: {quoted(error)}" if error else "an answer without choices")


def _ids(found: Any) -> tuple[int, ...]:
    if found is None:
        raise ReplyError("an answer without token ids: only vLLM gives them, since version 0.10.2")
    if not isinstance(found, list) or not all(type(token) is int and 0 <= token < _NUM_IDS for token in found):
        raise ReplyError(f"these are no token ids: {quoted(found)}")
    return tuple(found)


def _log_probs(found: Any, prompt_ids: Sequence[int]) -> tuple[float, ...]:
    if not isinstance(found, list) or len(found) != len(prompt_ids):
        raise ReplyError("an answer without the log-probabilities of the prompt's tokens")
    values = [0.0]
    for token, by_id in zip(prompt_ids[1:], found[1:], strict=True):
        entry = by_id.get(str(token)) if isinstance(by_id, Mapping) else None
        value = entry.get("logprob") if isinstance(entry, Mapping) else None
        if not isinstance(value, int | float) or not -_MOST <= value <= _MOST:
            raise ReplyError(f"no log-probability of token {token} of the prompt: {quoted(by_id)}")
        values.append(float(value))
    return tuple(values)
