"""What was spent on a teacher, and whether the next request still fits the budget.

A request is reserved with the most that it can take until it has an outcome, and counted with what it took once the log
has it: so all processes count the same. No limit is passed, whatever is under way, as long as a token has two bytes on
average (English text has more than four). And a limit is reached only where the next request would pass it with nothing
under way: how many are asked at once decides nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sft.config_construction import ConstructionBudget
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply

_LEAST_BYTES_PER_TOKEN = 2
_USUAL_BYTES_PER_TOKEN = 4
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of prompts and of answers."""

    prompt: int = 0
    reply: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.reply + other.reply)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt - other.prompt, self.reply - other.reply)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.reply


class Spending:
    """Counts one construction."""

    def __init__(self, budget: ConstructionBudget) -> None:
        """Nothing is spent yet."""
        self._budget = budget
        self.num_requests = 0
        """In the log."""
        self.tokens = Tokens()
        self.reached = ""
        """The limit that a request would have passed; no other is made after it."""
        self._num_reserved, self._reserved = 0, Tokens()

    @property
    def cost(self) -> float | None:
        """Of what was spent; None if no price is known."""
        return self.cost_of(self.tokens)

    def cost_of(self, tokens: Tokens) -> float | None:
        """What these tokens cost; None if no price is known."""
        prices = self._budget.price_per_million_tokens
        return None if prices is None else (tokens.prompt * prices[0] + tokens.reply * prices[1]) / _MILLION

    def reserve(self, most: Tokens, num_in_vain: int = 0) -> bool:
        """Whether a request that takes at most this may be made now; it is then under way until `release`.

        If not, either a limit is `reached`, or those that are under way may take all that is left: it may be made when
        they have taken less. `num_in_vain`: so many were made, and are in the log once it is known that they get no
        answer.
        """
        if self.reached:
            return False
        num_requests = self.num_requests + num_in_vain + 1
        self.reached = self._passed(num_requests, self.tokens + most)
        if self.reached or self._passed(num_requests + self._num_reserved, self.tokens + self._reserved + most):
            return False
        self._num_reserved, self._reserved = self._num_reserved + 1, self._reserved + most
        return True

    def _passed(self, num_requests: int, tokens: Tokens) -> str:
        """The limit that so many would pass; empty: none."""
        limits, cost = self._budget, self.cost_of(tokens)
        if limits.requests is not None and num_requests > limits.requests:
            return f"budget.requests={limits.requests:,}"
        if limits.tokens is not None and tokens.total > limits.tokens:
            return f"budget.tokens={limits.tokens:,}"
        if limits.cost is not None and cost is not None and cost > limits.cost:
            return f"budget.cost={limits.cost:g}"
        return ""

    def release(self, most: Tokens) -> None:
        """A request that was reserved with `most` is not under way any more."""
        self._num_reserved, self._reserved = self._num_reserved - 1, self._reserved - most

    def count(self, taken: Tokens) -> None:
        """Count a request of the log."""
        self.num_requests += 1
        self.tokens += taken


def most_tokens(asked: Mapping[str, Any]) -> Tokens:
    """The most that a request with this content takes."""
    return Tokens(-(-_num_bytes(asked) // _LEAST_BYTES_PER_TOKEN), int(asked["max_tokens"]))


def taken_tokens(asked: Mapping[str, Any], outcome: ChatReply | NoReply) -> Tokens:
    """What a request with this content took; where the server does not say how many tokens, the most that it can be.

    An answer of no use has taken as much as any other.
    """
    if isinstance(outcome, NoReply) and not outcome.is_billed:
        return Tokens()
    prompt, reply = outcome.num_prompt_tokens, outcome.num_tokens
    if prompt is None or reply is None:
        most = most_tokens(asked)
        return Tokens(most.prompt if prompt is None else prompt, most.reply if reply is None else reply)
    return Tokens(prompt, reply)


def usual_tokens(request: ChatRequest) -> Tokens:
    """About what a request takes at most, for an estimate."""
    num_bytes = _num_bytes(request.content())
    return Tokens(num_bytes // _USUAL_BYTES_PER_TOKEN, request.max_tokens)


def _num_bytes(asked: Mapping[str, Any]) -> int:
    """Of what the model reads."""
    return sum(len(json.dumps(asked.get(name, ""), ensure_ascii=False).encode()) for name in ("messages", "tools"))
