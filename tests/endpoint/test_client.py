"""The client of served models, against a real server on loopback that does what servers do wrong."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.endpoint.chat import ChatReply, ChatRequest, NoReply, read_reply
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from sft.endpoint.paid import PaidReplies
from sft.url_secrets import without_secrets
from tests.endpoint.chat_server import KEY, ChatServer, chat_server

PATIENCE = Patience(at_once=16, seconds=20, seconds_in_all=30, retries=0, most_bytes=200_000)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(lambda content: f"to {content['messages'][-1]['content']}") as chat:
        yield chat


def request_of(prompt: str, **about: object) -> ChatRequest:
    return ChatRequest(prompt, [{"role": "user", "content": prompt}], 8, **about)  # type: ignore[arg-type]


def outcomes(
    server: ChatServer, prompts: list[str], patience: Patience = PATIENCE, model: str = "tiny"
) -> dict[str, ChatReply | NoReply]:
    found: dict[str, ChatReply | NoReply] = {}
    client = EndpointClient(Endpoint(server.url, model), patience)
    client.chat_all(map(request_of, prompts), lambda request, outcome: found.update({request.key: outcome}))
    return found


REASONS = {
    "hang up": "disconnected",
    "half": "ended in the middle of the answer",
    "garbage": "what came is no JSON: '<!doctype html><p>Hello'",
    "huge": "larger than 200,000 bytes",
    "no choices": "without choices",
    "no text": "without text",
    "strange end": "finish_reason is 'whatever'",
    "no calls": "finish_reason is tool_calls, and there are none",
    "too long": "9 tokens were written, and at most 8 were asked for",
    "refused": "status 400: 'too long a prompt",
}
ONCE = ["trouble", "hang up once", "half once"]


def test_a_request_in_vain_costs_itself(server: ChatServer) -> None:
    found = outcomes(server, [*REASONS, "hello"])
    for prompt, reason in REASONS.items():
        outcome = found[prompt]
        assert isinstance(outcome, NoReply), prompt
        assert reason in outcome.reason, (prompt, outcome.reason)
    assert found["hello"] == ChatReply("to hello", num_tokens=3, num_prompt_tokens=3)


def test_what_passes_is_tried_again(server: ChatServer) -> None:
    found = outcomes(server, ONCE, Patience(retries=2))
    assert {type(outcome) for outcome in found.values()} == {ChatReply}


def test_a_server_that_is_slow_or_sends_drop_by_drop_is_not_waited_for(server: ChatServer) -> None:
    found = outcomes(server, ["slow", "drip"], Patience(seconds=0.4, seconds_in_all=0.8, retries=0))
    assert found["slow"] == NoReply("no answer within 0.4 seconds, in 1 try")
    assert found["drip"] == NoReply("no answer within 0.8 seconds", is_billed=True)


def test_retry_after_is_kept(server: ChatServer) -> None:
    started = time.monotonic()
    assert outcomes(server, ["busy"], Patience(retries=1)) == {"busy": ChatReply("to busy", (), True, 3, 3)}
    assert 0.3 <= time.monotonic() - started < 5


def test_no_more_than_so_many_are_under_way_and_requests_are_drawn_as_they_are_sent() -> None:
    num_drawn = num_done = 0

    def requests() -> Iterator[ChatRequest]:
        nonlocal num_drawn
        for number in range(24):
            assert num_drawn - num_done <= 8
            num_drawn += 1
            yield request_of(f"number {number}")

    def done(request: ChatRequest, outcome: ChatReply | NoReply) -> None:
        nonlocal num_done
        assert isinstance(outcome, ChatReply)
        num_done += 1

    with chat_server(seconds=0.1) as server:
        EndpointClient(Endpoint(server.url, "tiny"), Patience(at_once=8)).chat_all(requests(), done)
    assert (num_done, server.most_at_once) == (24, 8)


def test_when_time_is_over_the_rest_is_left() -> None:
    found: list[str] = []
    with chat_server(seconds=0.1) as server:
        client = EndpointClient(Endpoint(server.url, "tiny"), Patience(at_once=2))
        requests = (request_of(f"number {number}") for number in range(100))
        client.chat_all(requests, lambda request, outcome: found.append(request.key), max_seconds=0.5)
    assert 2 <= len(found) <= 10


@pytest.mark.parametrize(
    ("about", "model", "told"),
    [
        ({"status": 401}, "tiny", r"refuses \(status 401\) no key: set OPENAI_API_KEY: 'by script'"),
        ({"status": 429}, "tiny", r"still limits the rate \(status 429\) after 1 try"),
        (
            {"status": 500},
            "tiny",
            "16 requests in a row got no answer; .* status 500",
        ),
        ({"status": 307}, "tiny", "which is not followed"),
        ({}, "large", r"status 404 when 'large' is asked: 'no such model'. It has tiny\."),
    ],
)
def test_what_is_the_same_for_all_requests_ends_it(about: dict[str, int], model: str, told: str) -> None:
    prompts = [f"number {number}" for number in range(200)]
    with chat_server(**about) as server, pytest.raises(EndpointError, match=told):
        outcomes(server, prompts, Patience(at_once=4, retries=0), model)
    assert len(server.asked) < 30


def test_the_server_is_looked_at_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(models=["one", "other"], key=KEY) as server:
        with pytest.raises(EndpointError, match=r"refuses \(status 401\) no key: set OPENAI_API_KEY"):
            EndpointClient(Endpoint(server.url)).check()
        monkeypatch.setenv("MY_KEY", KEY)
        with pytest.raises(EndpointError, match="The server has one, other. Name the model to ask."):
            EndpointClient(Endpoint(server.url, "", "MY_KEY")).check()
        with pytest.raises(EndpointError, match="has no model 'third'. It has one, other."):
            EndpointClient(Endpoint(server.url, "third", "MY_KEY")).check()
        assert EndpointClient(Endpoint(server.url, "other", "MY_KEY")).check().model == "other"
        assert KEY not in without_secrets(f"the key is {KEY}")
        monkeypatch.setenv("MY_KEY", "sk-another-wrong-one")
        with pytest.raises(EndpointError) as refused:
            EndpointClient(Endpoint(server.url, "one", "MY_KEY")).check()
    assert "the key of MY_KEY" in str(refused.value)
    assert "another-wrong" not in str(refused.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(EndpointError, match="the variable MY_KEY.* is not set"):
        EndpointClient(Endpoint(server.url, "one", "MY_KEY"))


def test_an_address_where_nothing_answers_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=f"nothing answers at {url}: .*Start the server"):
            EndpointClient(Endpoint(url), Patience(retries=0)).check()


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8000", "ftp://there/v1", "http://", "http://a:b@there/v1", "http://t/?k=v"),
        *("http://the\nre/v1", "http://there/\x01", "http://the re/v1", "http://there/v1\u2028"),
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="address") as refused:
        Endpoint(url)
    assert "a:b" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        *((f"http://{host}/v1", "is no address of a server") for host in ("\u00e4" * 80, "a" * 80, "a..b")),
        ("http://1.2.3.999/v1", "nothing answers at"),
    ],
)
def test_an_address_that_nobody_can_look_up_is_a_message(url: str, told: str) -> None:
    with pytest.raises(EndpointError, match=told):
        EndpointClient(Endpoint(url), Patience(retries=0)).check()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("sk-aaaa1111\nsk-bbbb2222", "more than one line"),
        ("sk-aaaa1111\u2028sk-bbbb2222", "more than one line"),
        ("\u201csk-bbbb2222\u201d", "not ASCII"),
        ("sk-\x07bbbb2222", "a control character"),
    ],
)
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    for variable, named in (("MY_KEY", "MY_KEY"), ("OPENAI_API_KEY", ""), ("OPENAI_ORG_ID", "")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(EndpointError, match=f"the variable {variable} holds .*{told}") as refused:
                EndpointClient(Endpoint("http://127.0.0.1:1/v1", "tiny", named))
            assert "bbbb" not in str(refused.value)


def test_proxies_of_the_environment_are_not_used(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert outcomes(server, ["hello"])["hello"] == ChatReply("to hello", (), True, 3, 3)


def test_a_reply_is_paid_once_and_its_file_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = tmp_path / "replies.jsonl"
    found: list[ChatReply | NoReply] = []
    with chat_server() as server:
        client = EndpointClient(Endpoint(server.url, "tiny"), PATIENCE)
        for prompts in (["one", "garbage", "one"], ["one", "two"]):
            PaidReplies(path).chat_all(client, map(request_of, prompts), lambda _, outcome: found.append(outcome))
    assert [one["messages"][0]["content"] for one in server.asked].count("one") == 1
    assert len(server.asked) == 3
    assert [type(outcome) for outcome in found].count(ChatReply) == 4
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["one", "two"]
    assert KEY not in path.read_text()


def test_a_server_without_structured_output_is_asked_in_words() -> None:
    with chat_server(structured=False) as server:
        client, found = EndpointClient(Endpoint(server.url, "tiny"), PATIENCE), []
        requests = [request_of(f"number {number}", schema={"type": "object"}) for number in range(3)]
        client.chat_all(requests, lambda _, outcome: found.append(type(outcome)))
    assert found == [ChatReply] * 3
    assert "response_format" not in server.asked[-1]


def test_a_request_that_the_server_refuses_in_any_form_takes_the_schema_from_no_other() -> None:
    with chat_server() as server:
        client, found = EndpointClient(Endpoint(server.url, "tiny"), PATIENCE), []
        for prompt in ("refused", "hello"):
            client.chat_all([request_of(prompt, schema={"type": "object"})], lambda _, outcome: found.append(outcome))
    assert [type(outcome) for outcome in found] == [NoReply, ChatReply]
    assert ["response_format" in content for content in server.asked] == [True, False, True]


def test_a_schema_that_the_server_refuses_is_asked_for_in_words_and_others_are_held_to_theirs() -> None:
    with chat_server() as server:
        server.refused_schema = {"type": "array"}
        client, found = EndpointClient(Endpoint(server.url, "tiny"), PATIENCE), []
        for number, kind in enumerate(("array", "object", "array", "object")):
            request = request_of(f"number {number}", schema={"type": kind})
            client.chat_all([request], lambda _, outcome: found.append(type(outcome)))
    assert found == [ChatReply] * 4
    assert ["response_format" in content for content in server.asked] == [True, False, True, False, True]


def test_a_server_that_cuts_answers_off_and_then_refuses_the_schema_is_asked_in_words() -> None:
    with chat_server(structured=False) as server:
        server.num_cut_off = 2
        client, found = EndpointClient(Endpoint(server.url, "tiny"), PATIENCE), []
        client.chat_all([request_of("hello", schema={"type": "object"})], lambda _, outcome: found.append(outcome))
    assert [type(outcome) for outcome in found] == [ChatReply]
    assert len(server.asked) == 4


BILLED = {
    "filtered": (100, 900),
    "no text": (3, 1),
    "strange end": (3, 1),
    "too long": (3, 9),
    "garbage": (None, None),
    "huge": (None, None),
    "half": (None, None),
    "drip": (None, None),
}


def test_what_an_answer_of_no_use_has_taken_is_told(server: ChatServer) -> None:
    prompts = [*BILLED, "refused", "hang up"]
    found = outcomes(server, prompts, Patience(seconds=5, seconds_in_all=0.8, retries=0, most_bytes=200_000))
    for prompt in prompts:
        outcome = found[prompt]
        assert isinstance(outcome, NoReply)
        assert outcome.is_billed == (prompt in BILLED), prompt
        assert (outcome.num_prompt_tokens, outcome.num_tokens) == BILLED.get(prompt, (None, None)), prompt


def test_half_of_a_character_is_replaced() -> None:
    body = b'{"choices": [{"message": {"content": "x \\ud83d"}, "finish_reason": "length"}]}'
    assert read_reply(body, 8) == ChatReply("x \N{REPLACEMENT CHARACTER}", stopped=False)


def test_answers_of_no_use_that_are_counted_end_nothing_however_many_come_in_a_row(server: ChatServer) -> None:
    found: list[ChatReply | NoReply] = []
    client = EndpointClient(Endpoint(server.url, "tiny"), Patience(at_once=4, retries=0))
    requests = (request_of("filtered", seed=number) for number in range(40))
    client.chat_all(requests, lambda _, outcome: found.append(outcome))
    assert [isinstance(outcome, NoReply) and outcome.is_counted for outcome in found] == [True] * 40


@pytest.mark.parametrize(("prompt", "is_billed"), [("garbage", True), ("refused", False)])
def test_when_too_much_is_in_vain_what_was_asked_before_has_its_outcome(
    server: ChatServer, prompt: str, is_billed: bool
) -> None:
    async def asked() -> tuple[list[ChatReply | NoReply | BaseException], list[ChatReply | NoReply | BaseException]]:
        async with client.asked() as ask:
            first = [ask(request_of(prompt, seed=number)) for number in range(20)]
            return (
                await asyncio.gather(*first, return_exceptions=True),
                await asyncio.gather(ask(request_of("hello")), return_exceptions=True),
            )

    client = EndpointClient(Endpoint(server.url, "tiny"), PATIENCE)
    first, after = asyncio.run(asked())
    assert [isinstance(outcome, NoReply) and outcome.is_billed for outcome in first] == [is_billed] * 20
    assert "20 requests in a row got no answer" in str(after[0])


def test_tokens_that_a_server_does_not_count_are_not_stated() -> None:
    def read(text: str) -> ChatReply:
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0}
        return read_reply(json.dumps({"choices": [choice], "usage": usage}).encode(), 8)

    assert (read("hello").num_tokens, read("hello").num_prompt_tokens) == (None, None)
    assert (read("").num_tokens, read("").num_prompt_tokens) == (0, None)
