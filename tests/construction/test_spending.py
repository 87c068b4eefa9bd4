"""What is counted as spent is what the log holds: the same in the process that asks and in any that reads the log."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config_construction import ConstructionBudget
from sft.construction.asking import PROBE, Asking
from sft.construction.at_once import ask_all
from sft.construction.prompts import Prompts
from sft.construction.recipes.registry import read_recipes
from sft.construction.request_log import open_log
from sft.construction.script import Failed
from sft.construction.spending import Spending, Tokens, most_tokens
from sft.construction.teacher import Ask, TeacherError, TeacherId
from sft.construction.work import Ended, Part, Work
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from tests.construction.teaching import SEEDS, lines_of, output_of, run, section, teach
from tests.endpoint.chat_server import FILTERED, Trouble, chat_server

OF_NO_USE = NoReply("filtered", True, 5, 7)
UNCOUNTED = NoReply("half an answer", is_billed=True)
IN_VAIN = NoReply("status 400")
PRICE = (1.0, 2.0)


class Mixed:
    """A teacher whose outcome to a request is drawn by the request's name, of given shares; then it is gone."""

    def __init__(self, name: str, at_once: int, shares: tuple[int, ...], num_well: int, probe: Any = None) -> None:
        self.id, self.title, self.at_once = TeacherId("nowhere", name), name, at_once
        self._shares, self._num_well, self._probe = shares, num_well, probe
        self._draw = random.Random(num_well)
        self.asked: list[str] = []
        self.taken: dict[str, ChatReply | NoReply] = {}
        """What it has said, but where that was nothing."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        yield self._ask

    async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
        self.asked.append(request.key)
        if len(self.asked) > self._num_well:
            raise TeacherError("it is gone")
        for _ in range(self._draw.randrange(6)):
            await asyncio.sleep(0)
        outcome = self._probe if request.messages == PROBE.messages and self._probe else self._outcome(request)
        if outcome != IN_VAIN:
            assert request.key not in self.taken, "paid twice"
            self.taken[request.key] = outcome
        return outcome

    def _outcome(self, request: ChatRequest) -> ChatReply | NoReply:
        text, chance = teach(request.content()), hashlib.sha256(request.key.encode()).digest()[0]
        kinds = ChatReply(text, (), True, 3, 2), ChatReply(text), OF_NO_USE, UNCOUNTED, IN_VAIN
        of = [kind for kind, share in zip(kinds, self._shares, strict=True) for _ in range(share)]
        return of[chance % len(of)]


class Counted(NamedTuple):
    """What is counted in one process."""

    num_requests: int
    tokens: Tokens
    cost: float | None
    num_in_log: int
    num_probes: int


def counted(log: Any) -> Counted:
    spending = log.spending
    return Counted(spending.num_requests, spending.tokens, spending.cost, len(log), log.num_probes)


def work_of(
    num: int, kinds: tuple[str, ...] = ("few_shot", "self_instruct"), teachers: tuple[int, ...] = (0, 1)
) -> Work:
    recipes = read_recipes([{"kind": kind, "num": 1, "tasks": "all"} for kind in kinds])
    return Work([Part(recipe, "words", num, SEEDS, teachers) for recipe in recipes], Prompts(), run_seed=3)


def asked_all(
    path: Path, wanted: Work, teachers: list[Mixed], budget: ConstructionBudget
) -> tuple[Counted, str, list[Ended]]:
    """What one process counts, the limit that it has reached, and how the scripts end."""
    with open_log(path, Spending(budget)) as log:
        asking = Asking(teachers, log, log.spending)
        ask_all(asking, wanted.courses(), lambda: None)
        return counted(log), log.spending.reached, [*wanted.outcomes(asking.replay)]


def read_again(path: Path, budget: ConstructionBudget) -> Counted:
    with open_log(path, Spending(budget)) as log:
        return counted(log)


BUDGETS = st.sampled_from([{}, {"requests": 25}, {"tokens": 9000}, {"cost": 0.012}])
SHARES = st.tuples(*[st.integers(0, 4)] * 5).filter(any)


@settings(max_examples=20)
@given(SHARES, st.integers(0, 40) | st.just(10**9), st.sampled_from([1, 3, 16]), BUDGETS)
def test_what_is_counted_live_is_what_the_log_counts_after_any_mix_of_outcomes(
    shares: tuple[int, ...], num_well: int, at_once: int, limits: dict[str, Any]
) -> None:
    budget = ConstructionBudget(price_per_million_tokens=PRICE, **limits)
    wanted = work_of(12)

    def teachers(num: int) -> list[Mixed]:
        return [Mixed(name, at_once, shares, num, ChatReply("Hello.", (), True, 2, 3)) for name in "ab"]

    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        first = teachers(num_well)
        live, reached, ended = asked_all(path, wanted, first, budget)
        assert live == read_again(path, budget)
        assert live.num_requests == live.num_in_log
        lines = {line["request"]: line for line in lines_of(path)}
        assert len(lines) == live.num_in_log, "each once"
        paid = {key: outcome for one in first for key, outcome in one.taken.items()}
        assert paid.keys() <= lines.keys(), "what was paid is kept"
        assert live.tokens == sum((_taken(paid[key], lines[key]["asked"]) for key in paid), Tokens())
        spent = {"requests": live.num_requests, "tokens": live.tokens.total, "cost": live.cost}
        assert all(spent[name] <= most for name, most in limits.items())
        # The same command goes on, and pays nothing twice. If nothing is left to ask for, nothing at all changes.
        second = teachers(10**9)
        again, reached_again, ended_again = asked_all(path, wanted, second, budget)
        assert again == read_again(path, budget)
        assert not paid.keys() & {key for one in second for key in one.taken}
        if not any(isinstance(one.outcome, Failed) and not one.outcome.is_final for one in ended):
            assert (again, reached_again, ended_again) == (live, reached, ended)
            assert not [key for one in second for key in one.asked]


def _taken(outcome: ChatReply | NoReply, asked: Any) -> Tokens:
    num, num_prompt = outcome.num_tokens, outcome.num_prompt_tokens
    return most_tokens(asked) if num is None or num_prompt is None else Tokens(num_prompt, num)


def test_a_request_in_vain_counts_once_where_it_is_made_as_in_the_log(tmp_path: Path) -> None:
    # One of two in vain: each was sent twice, and is one line of the log.
    teacher = Mixed("a", 1, (1, 0, 0, 0, 1), 10**9)
    budget = ConstructionBudget(requests=12)
    wanted = work_of(40, ("few_shot",), (0,))
    live, reached, _ = asked_all(tmp_path / "log.jsonl", wanted, [teacher], budget)
    assert reached
    assert 11 <= live.num_requests <= 12
    assert len(teacher.asked) > 12 + 2
    assert live == read_again(tmp_path / "log.jsonl", budget)


@pytest.mark.parametrize("at_once", [1, 8])
def test_answers_that_state_no_tokens_are_paid_once_though_nothing_else_comes(tmp_path: Path, at_once: int) -> None:
    path, budget = tmp_path / "log.jsonl", ConstructionBudget(requests=20)
    for turn in range(2):
        teacher = Mixed("a", at_once, (0, 0, 0, 1, 0), 10**9)
        live, reached, _ = asked_all(path, work_of(40, ("few_shot",), (0,)), [teacher], budget)
        assert len(teacher.asked) == (0 if turn else 20)
        assert (live.num_requests, reached) == (20, "budget.requests=20")
        assert live.tokens.reply == 20 * 1024, "the most that they can have"


@pytest.mark.parametrize("probe", [ChatReply("Hello."), OF_NO_USE, UNCOUNTED])
def test_any_answer_to_a_probe_shows_that_the_teacher_is_there(tmp_path: Path, probe: Any) -> None:
    path = tmp_path / "log.jsonl"
    teacher = Mixed("a", 4, (0, 0, 0, 0, 1), 10**9, probe)
    counted, _, ended = asked_all(path, work_of(5, ("few_shot",), (0,)), [teacher], ConstructionBudget())
    assert {one.outcome for one in ended} == {Failed("no answer: status 400")}
    assert len(teacher.asked) == 5 * 2 + 1
    assert (counted.num_requests, counted.num_probes) == (6, 1)
    assert Counter(line["for"].startswith("probe") for line in lines_of(path)) == {True: 1, False: 5}


@pytest.mark.parametrize("num", [pytest.param(10**400, id="huge"), -1, 0, 3.5, "many", True, None])
def test_a_count_that_is_none_is_counted_by_the_most_that_it_can_be(tmp_path: Path, num: Any) -> None:
    def miscounted(content: Any) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": teach(content)}, "finish_reason": "stop"}
        return {"choices": [choice], "usage": {"completion_tokens": 4, "prompt_tokens": num}}

    recipes, budget = ({"kind": "few_shot", "num": 3, "tasks": "all"},), {"price_per_million_tokens": [1, 1], "cost": 1}
    with chat_server(miscounted) as server:
        spending = run(section(server.url, tmp_path / "out", recipes, budget=budget)).spending
    most = sum(most_tokens(line["asked"]).prompt for line in lines_of(tmp_path / "out/log/replies.jsonl"))
    assert spending.tokens == Tokens(most, 3 * 4)
    assert spending.cost == pytest.approx((most + 12) / 1e6)


def test_of_a_server_that_answers_anything_the_same_command_counts_and_makes_the_same(tmp_path: Path) -> None:
    nothing = {"choices": [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}

    def anything(content: Any) -> str | dict[str, Any]:
        prompt = content["messages"][-1]["content"]
        chance = hashlib.sha256(prompt.encode()).digest()[0] % 16
        if chance == 0:
            raise Trouble
        return nothing if chance == 1 or prompt == PROBE.messages[0]["content"] else FILTERED

    with chat_server(anything) as server:
        given = section(server.url, tmp_path / "out", ({"kind": "few_shot", "num": 60, "tasks": "all"},), at_once=4)
        first, manifest = run(given), output_of(given.out)["manifest"]
        num = len(server.asked)
        assert first.error is None
        assert first.counts.not_made["no answer: the server's filter held the answer back"] > 16, "in a row, too"
        assert first.counts.not_made["no answer: an answer without text"] > 0
        assert sum(first.counts.not_made.values()) == 60
        assert first.spending.num_requests == manifest["num_requests"] == len({str(one) for one in server.asked})
        again = run(given)
        assert len(server.asked) == num
    assert output_of(given.out)["manifest"] == manifest
    assert (again.spending.num_requests, again.spending.tokens) == (first.spending.num_requests, first.spending.tokens)
