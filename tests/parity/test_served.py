"""A server of the folder: its texts and its prompts are compared, where it gives them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sft.data.rendering.chat_template import load_tokenizer
from sft.data.tokenization import ExampleTokenizer
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, Patience
from sft.parity.case import Case
from sft.parity.own_computation import OwnCase
from sft.parity.parity_result import Check
from sft.parity.served import compare_served
from sft.thoughts import Marks
from tests.checkpoint.exported import run_config
from tests.conftest import TokenizerDir
from tests.endpoint.chat_server import ChatServer, chat_server

ASKED = ("river", "meadow")


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir: TokenizerDir) -> ExampleTokenizer:
    return ExampleTokenizer(load_tokenizer(run_config(tokenizer_dir("chatml"), "float32").model))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(lambda content: f"about {content['messages'][-1]['content']}") as found:
        yield found


def checks(server: ChatServer, tokenizer: ExampleTokenizer, answer: str = "about ") -> dict[str, Check]:
    cases, own = [], []
    for word in ASKED:
        ids = tuple(tokenizer.ids_of(word))
        messages = ({"role": "user", "content": word},)
        cases.append(Case(word, (*ids, 2), len(ids), ids, messages, messages))
        own.append(OwnCase((-1.0,), (-1.0,), (*tokenizer.ids_of(f"{answer}{word}"), 2)))
    found = compare_served(
        EndpointClient(Endpoint(server.url), Patience(retries=0)),
        cases,
        own,
        tokenizer,
        lambda case, written, a, b: case.name == "tie",
    )
    return {check.name: check for check in found}


def test_texts_are_compared(server: ChatServer, tokenizer: ExampleTokenizer) -> None:
    assert checks(server, tokenizer) == {"answers of the server": Check("answers of the server", 2, 0)}
    assert [one["temperature"] for one in server.asked if "temperature" in one] == [0.0, 0.0]
    other = checks(server, tokenizer, "on ")["answers of the server"]
    assert other.num_different == 2
    assert other.first == "river: the server writes 'about river'; the trained model 'on river'"


@pytest.mark.parametrize(
    ("form", "num_different"),
    [("<|im_start|>about <|im_start|>{}", 0), ("about {}", 0), ("{}", 0), ("on {}", 2), ("about", 2)],
)
def test_a_server_may_leave_out_marks_or_the_whole_thought(
    tokenizer: ExampleTokenizer, form: str, num_different: int
) -> None:
    mark = "<|im_start|>"
    with chat_server(lambda content: form.format(content["messages"][-1]["content"])) as server:
        found = checks(server, tokenizer.with_marks(Marks(mark, mark)), f"{mark}about {mark}")
    assert found["answers of the server"].num_different == num_different, found


def test_prompts_are_compared_where_the_server_tokenizes(server: ChatServer, tokenizer: ExampleTokenizer) -> None:
    def tokens(content: Mapping[str, Any]) -> list[int]:
        word = content["messages"][-1]["content"]
        return [*([1] if word == "meadow" else []), *tokenizer.ids_of(word)]

    server.tokenize = tokens
    found = checks(server, tokenizer)
    prompts = found["prompts of the server"]
    assert (prompts.num_compared, prompts.num_different) == (2, 1)
    assert prompts.first.startswith("meadow: at token 0 of the prompt the server has '<|im_start|>' (1); training saw")
    assert found["answers of the server"].num_different == 0


def test_a_server_that_fails_is_a_difference(server: ChatServer, tokenizer: ExampleTokenizer) -> None:
    server.status = 500
    check = checks(server, tokenizer)["answers of the server"]
    assert "the server gives no answer: the server answers with status 500" in check.first
