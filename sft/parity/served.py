"""Asks a server of the folder the same: text of greedy answers, and token ids where it has vLLM's `/tokenize`."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from sft.data.tokenization import ExampleTokenizer
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.client import EndpointClient
from sft.parity.case import Case
from sft.parity.comparison import Shown
from sft.parity.own_computation import OwnCase
from sft.parity.parity_result import Check
from sft.thoughts import answer_in, in_usual_form

_SECONDS = 60.0
_MOST_BYTES = 4 << 20

IsTie = Callable[[Case, tuple[int, ...], int, int], bool]
"""(case, tokens so far, two tokens) → whether they are equally probable to within rounding."""


def compare_served(
    client: EndpointClient, cases: Sequence[Case], own: Sequence[OwnCase], tokenizer: ExampleTokenizer, is_tie: IsTie
) -> list[Check]:
    """Compare a server's prompts and answers with those of the trained model; cases without messages are left out.

    Raises:
        EndpointError: nothing can be asked there.
    """
    client.check()
    asked = [(case, mine) for case, mine in zip(cases, own, strict=True) if case.messages]
    return [
        *_compare_prompts(client, [case for case, _ in asked], tokenizer),
        _compare_texts(client, asked, tokenizer, is_tie),
    ]


def _compare_texts(
    client: EndpointClient, asked: Sequence[tuple[Case, OwnCase]], tokenizer: ExampleTokenizer, is_tie: IsTie
) -> Check:
    replies: dict[str, ChatReply | NoReply] = {}
    requests = [
        ChatRequest(str(i), case.openai_messages, case.max_new_tokens, case.tools) for i, (case, _) in enumerate(asked)
    ]
    client.chat_all(requests, lambda request, outcome: replies.__setitem__(request.key, outcome))
    firsts, ties, num = [], 0, 0
    for i, (case, mine) in enumerate(asked):
        reply = replies.get(str(i), NoReply("no answer"))
        if isinstance(reply, ChatReply) and reply.tool_calls:
            continue  # the server has taken them out of the text
        num += 1
        if isinstance(reply, NoReply):
            firsts.append(f"{case.name}: the server gives no answer: {reply.reason}")
            continue
        right, found = tokenizer.words_of(mine.answer), reply.text.strip()
        # A server leaves control tokens out, also the marks of a thought, or keeps the whole thought apart.
        answer = answer_in(in_usual_form(right, tokenizer.marks)).answer.strip()
        if found in (right, tokenizer.words_of(mine.answer, with_marks=False), answer):
            continue
        theirs = tuple(tokenizer.ids_of(found))
        at = next((k for k, (a, b) in enumerate(zip(theirs, mine.answer, strict=False)) if a != b), None)
        if at is not None and is_tie(case, mine.answer[:at], theirs[at], mine.answer[at]):
            ties += 1
            continue
        end = "" if reply.stopped else ", cut off at its limit"
        firsts.append(f"{case.name}: the server writes {found[:200]!r}{end}; the trained model {right[:200]!r}")
    note = f"{ties} of {num} answers part at two tokens that are equally probable to within rounding"
    return Check("answers of the server", num, len(firsts), firsts[0] if firsts else "", (note,) if ties else ())


def _compare_prompts(client: EndpointClient, cases: Sequence[Case], tokenizer: ExampleTokenizer) -> list[Check]:
    shown, firsts, num = Shown(tokenizer.text_of), [], 0
    for case in cases:
        ids = _tokenized(client, case)
        if ids is None:
            return []  # the server has no such thing
        num += 1
        if ids != case.prompt_ids:
            pairs = enumerate(zip(ids, case.prompt_ids, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(case.prompt_ids)))
            firsts.append(
                f"{case.name}: at token {at} of the prompt the server has {shown.token(ids, at)}; training saw "
                f"{shown.token(case.prompt_ids, at)}"
            )
    return [Check("prompts of the server", num, len(firsts), firsts[0] if firsts else "")]


def _tokenized(client: EndpointClient, case: Case) -> tuple[int, ...] | None:
    """The prompt's ids by the server's `/tokenize`; None where it has none."""
    endpoint = client.endpoint
    content: dict[str, Any] = {
        "model": endpoint.model,
        "messages": list(case.openai_messages),
        "add_generation_prompt": True,
        "add_special_tokens": False,
    }
    if case.tools:
        content["tools"] = list(case.tools)
    headers = {"Content-Type": "application/json"}
    if key := endpoint.key():
        headers["Authorization"] = f"Bearer {key}"
    address = endpoint.url.rstrip("/").removesuffix("/v1") + "/tokenize"
    request = urllib.request.Request(address, json.dumps(content).encode(), headers)  # noqa: S310  (http or https)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(request, timeout=_SECONDS) as response:
            tokens = json.loads(response.read(_MOST_BYTES)).get("tokens")
    except (OSError, ValueError, AttributeError, urllib.error.URLError):
        return None
    return tuple(tokens) if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens) else None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Prompts and key go where the address says."""

    def redirect_request(self, *_: Any) -> None:
        return None
