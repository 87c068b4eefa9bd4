"""Scripts go their own ways, and come to the same: whatever the order in which they end, and however many at once."""

import asyncio
import hashlib
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config_construction import ConstructionBudget
from sft.construction.asking import PROBE, Asking
from sft.construction.at_once import ask_all
from sft.construction.local_teacher import BATCH, LocalTeacher, LostReplicaError, Outcome
from sft.construction.prompts import Prompts
from sft.construction.recipes.recipe import About, Chain, Independent
from sft.construction.recipes.registry import read_recipes
from sft.construction.recipes.self_instruct import SelfInstruct
from sft.construction.request_log import open_log
from sft.construction.script import Elsewhere, Failed, Script
from sft.construction.spending import Spending
from sft.construction.teacher import Ask, TeacherError, TeacherId
from sft.construction.work import Course, Ended, Part, Work
from sft.draft import Draft
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from tests.construction.teaching import SEEDS, lines_of, teach


class Slow:
    """A teacher whose answers take from 0 to a few turns of the loop, at random."""

    def __init__(self, name: str, at_once: int, seed: int, limit: float = float("inf")) -> None:
        self.id, self.title, self.at_once = TeacherId("nowhere", name), name, at_once
        self.num_now = self.most_at_once = self.num_asked = 0
        self._random, self._limit = random.Random(seed), limit

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        yield self._ask

    async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
        self.num_now, self.num_asked = self.num_now + 1, self.num_asked + 1
        if self.num_asked > self._limit:
            raise TeacherError("it is gone")
        self.most_at_once = max(self.most_at_once, self.num_now)
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)
        self.num_now -= 1
        text = teach(request.content())
        digest = hashlib.sha256(request.key.encode()).digest()
        by_chance = digest[0] < 8 and request.messages != PROBE.messages
        return NoReply("by chance") if by_chance else ChatReply(text, num_tokens=3, num_prompt_tokens=2)


def work(nums: Sequence[int], kinds: Sequence[str] = ("self_instruct", "few_shot")) -> Work:
    """A part of each kind for each number."""
    recipes = read_recipes([{"kind": kind, "num": 1, "tasks": "all"} for kind in kinds])
    parts = [
        Part(recipe, f"task {i}", num, SEEDS, (i % 2, 1)) for recipe in recipes for i, num in enumerate(nums) if num
    ]
    return Work(parts, Prompts(), run_seed=3)


def outcomes(
    wanted: Work, path: Path, teachers: Sequence[Slow], budget: ConstructionBudget | None = None
) -> list[Ended]:
    with open_log(path, Spending(budget or ConstructionBudget())) as log:
        asking = Asking(teachers, log, log.spending)
        ask_all(asking, wanted.courses(), lambda: None)
        return [*wanted.outcomes(asking.replay)]


def test_neither_the_number_at_once_nor_the_order_of_answers_changes_what_comes(tmp_path: Path) -> None:
    found = []
    for i, at_once in enumerate((1, 7, 64)):
        teachers = [Slow("a", at_once, i), Slow("b", 3 * at_once, i)]
        found.append(outcomes(work((75, 35)), tmp_path / f"{i}.jsonl", teachers))
        assert [teacher.most_at_once <= teacher.at_once for teacher in teachers] == [True, True]
    assert found[0] == found[1] == found[2]
    names = [ended.name for ended in found[0]]
    assert len(names) == len(set(names)) == 220
    drafts = [ended.outcome for ended in found[0] if isinstance(ended.outcome, Draft)]
    shown = Counter(seed for draft in drafts for seed in draft.provenance.seeds if not seed.startswith("seed-"))
    assert shown, "later scripts see earlier drafts"
    reasons = {ended.outcome.reason for ended in found[0] if isinstance(ended.outcome, Failed)}
    assert any("by chance" in reason for reason in reasons)
    assert all(ended.outcome.is_final for ended in found[0] if isinstance(ended.outcome, Failed))


def test_a_larger_num_adds_scripts_and_changes_none(tmp_path: Path) -> None:
    fewer = outcomes(work((80,)), tmp_path / "log.jsonl", [Slow("a", 9, 0), Slow("b", 9, 0)])
    more = outcomes(work((120,)), tmp_path / "log.jsonl", [Slow("a", 9, 1), Slow("b", 9, 1)])
    assert [ended for ended in more if ended.name.number < 80] == fewer


class _Seeing(SelfInstruct):
    """A recipe that notes what its scripts see."""

    def chain(self, about: About) -> Chain:
        return _Noting()


class _Noting:
    window = 5

    def __init__(self) -> None:
        self.num_taken = 0
        self.seen: dict[int, int] = {}

    def script(self, number: int) -> Script:
        self.seen[number] = self.num_taken
        return Failed("never mind")
        yield

    def take(self, draft: Draft) -> str | None:
        self.num_taken += 1
        return None


@given(st.integers(1, 40), st.integers(0, 1000), st.integers(1, 12))
def test_a_script_begins_once_all_that_it_sees_have_ended(num: int, seed: int, at_once: int) -> None:
    draw, recipe = random.Random(seed), _Seeing(num=num)
    course = Course(Part(recipe, "t", num, SEEDS), About(recipe, "t", SEEDS, Prompts(), 0))
    draft = Draft(
        ({"role": "user", "content": "x"},), "t", About(recipe, "t", (), Prompts(), 0).draft("", "", ()).provenance
    )
    under_way: list[int] = []
    order, ended = [], set[int]()
    while len(ended) < num:
        while course.may_begin and len(under_way) < at_once:
            job = course.begin()
            with pytest.raises(StopIteration):
                next(job.begin())
            under_way.append(job.name.number)
            order.append(job.name.number)
            assert ended >= set(range(job.name.number - 4)), "all that it may see"
        assert under_way, "it never waits for nothing"
        number = under_way.pop(draw.randrange(len(under_way)))
        ended.add(number)
        course.end(number, draft)
    assert order == [*range(num)]
    chain = course._chain
    assert isinstance(chain, _Noting)
    assert chain.seen == {n: max(0, n - 4) for n in range(num)}, "and nothing else"
    assert [one.name.number for one in course.taken] == [*range(num)]


def test_one_that_hangs_holds_up_nothing_but_its_own_task(tmp_path: Path) -> None:
    class Hanging(Slow):
        others = asyncio.Event()

        async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
            self.num_asked += 1
            if self.num_asked == 1:
                await asyncio.wait_for(self.others.wait(), 20)
            elif self.num_asked == 30:
                self.others.set()
            return ChatReply("x")

    found = outcomes(work((60, 60), ("few_shot",)), tmp_path / "log.jsonl", [Hanging("a", 4, 0), Slow("b", 4, 0)])
    assert len(found) == 120


class _Verifying(SelfInstruct):
    """A recipe whose first script verifies something for as long as the others ask."""

    def chain(self, about: About) -> Chain:
        return Independent(partial(self._script, about))

    @staticmethod
    def _script(about: About, number: int) -> Script:
        yield about.request(f"ask {number}")
        found = (yield Elsewhere(partial(_ALL_ASKED.wait, 20))) if number == 0 else True
        return about.draft("all asked" if found else "it waited for itself", "x", ())


_ALL_ASKED = threading.Event()


def test_while_one_verifies_the_others_go_on(tmp_path: Path) -> None:
    class Counting(Slow):
        async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
            self.num_asked += 1
            if self.num_asked == 40:
                _ALL_ASKED.set()
            return ChatReply("x")

    recipe = _Verifying(num=40)
    wanted = Work([Part(recipe, "t", 40, SEEDS)], Prompts(), 3)
    found = outcomes(wanted, tmp_path / "log.jsonl", [Counting("a", 4, 0)])
    drafts = [one.outcome for one in found if isinstance(one.outcome, Draft)]
    assert len(drafts) == 40
    assert {draft.messages[0]["content"] for draft in drafts} == {"all asked"}


def test_a_small_budget_shows_something_of_every_recipe_and_task(tmp_path: Path) -> None:
    wanted = work((200, 200, 200))
    budget = ConstructionBudget(requests=60)
    found = outcomes(wanted, tmp_path / "log.jsonl", [Slow("a", 8, 0), Slow("b", 8, 0)], budget)
    ended = {(e.name.recipe, e.name.task) for e in found if not isinstance(e.outcome, Failed) or e.outcome.is_final}
    assert len(ended) == 6


def test_what_has_no_answer_is_not_settled_while_nothing_is_answered(tmp_path: Path) -> None:
    class Failing(Slow):
        async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
            self.num_asked += 1
            if self.num_asked > 30:
                raise TeacherError("16 in a row")
            return NoReply("away") if self.num_asked > 15 else ChatReply("x")

    wanted = work((40,), ("few_shot",))
    first = outcomes(wanted, tmp_path / "log.jsonl", [Failing("a", 4, 0)] * 2)
    assert {e.outcome.reason for e in first if isinstance(e.outcome, Failed) and not e.outcome.is_final} == {
        "it waits for a"
    }
    found = outcomes(wanted, tmp_path / "log.jsonl", [Slow("a", 4, 0)] * 2)
    assert not [e for e in found if isinstance(e.outcome, Failed) and "away" in e.outcome.reason]


def test_what_the_last_of_all_lacks_holds_up_nothing_that_would_see_it(tmp_path: Path) -> None:
    class Failing(Slow):
        """Never answers the first request, and says so when it has answered all that are asked beside it."""

        first = ""
        num_probes = 0

        async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
            self.num_probes += request.messages == PROBE.messages
            self.first = self.first or request.key
            if request.key != self.first:
                await super()._ask(request)
                return ChatReply(teach(request.content()))
            before = -1
            while before != self.num_asked:
                before = self.num_asked
                for _ in range(20):
                    await asyncio.sleep(0)
            return NoReply("this one never")

    path, teacher = tmp_path / "log.jsonl", Failing("a", 64, 0)
    recipe = read_recipes([{"kind": "self_instruct", "num": 150, "tasks": "all"}])[0]
    wanted = Work([Part(recipe, "t", 150, SEEDS)], Prompts(), 3)
    found = outcomes(wanted, path, [teacher])
    assert teacher.num_probes == 1
    assert found[0].outcome == Failed("no answer: this one never")
    assert all(e.outcome.is_final for e in found if isinstance(e.outcome, Failed))
    num = len(lines_of(path))
    assert outcomes(wanted, path, [Slow("a", 64, 0)]) == found
    assert len(lines_of(path)) == num, "it is not asked again"


class Talkative(Slow):
    """Its answers have up to as many tokens as are asked for."""

    async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
        await super()._ask(request)
        digest = hashlib.sha256(str(request.messages).encode()).digest()
        num = int.from_bytes(digest[:2]) * request.max_tokens >> 16
        return ChatReply(teach(request.content()), num_tokens=num >> digest[2] % 4, num_prompt_tokens=9)


@pytest.mark.parametrize("limit", ["tokens", "cost", "requests"])
def test_a_budget_ends_at_the_same_request_however_many_are_asked_at_once(tmp_path: Path, limit: str) -> None:
    budget = ConstructionBudget.model_validate(
        {"price_per_million_tokens": [1, 2], limit: {"tokens": 9000, "cost": 0.018, "requests": 25}[limit]}
    )
    wanted, logs = work((70, 50), ("few_shot",)), []
    wanted = replace(wanted, parts=[replace(part, teachers=(0,)) for part in wanted.parts])
    for at_once in (1, 5, 64):
        path = tmp_path / f"{at_once}.jsonl"
        found = outcomes(wanted, path, [Talkative("a", at_once, at_once)], budget)
        logs.append({line["request"]: line["reply"] for line in lines_of(path)})
        again = Talkative("a", at_once, 3)
        assert outcomes(wanted, path, [again], budget) == found
        assert again.num_asked == 0, "the same command has no room for more"
    assert logs[0] == logs[1] == logs[2]
    assert 15 < len(logs[0]) < 60
    spent = sum(reply["num_tokens"] + reply["num_prompt_tokens"] for reply in logs[0].values())
    assert limit != "tokens" or 9000 - 1024 - 500 < spent <= 9000


def test_at_a_budget_scripts_that_have_begun_end_first(tmp_path: Path) -> None:
    budget = ConstructionBudget(tokens=60_000)
    recipe = read_recipes([{"kind": "self_instruct", "num": 150, "tasks": "all"}])[0]
    wanted, made = Work([Part(recipe, "t", 150, SEEDS)], Prompts(), 3), []
    for at_once in (1, 64):
        log = tmp_path / f"{at_once}.jsonl"
        found = outcomes(wanted, log, [Talkative("a", at_once, 0)], budget)
        spent = sum(line["reply"]["num_tokens"] + 9 for line in lines_of(log))
        assert 60_000 - 1024 - 1000 < spent <= 60_000
        made.append([e.name.number for e in found if not isinstance(e.outcome, Failed) or e.outcome.is_final])
    assert made[0] == [*range(len(made[0]))]
    assert made[1] == [*range(len(made[1]))], "none is overtaken"
    assert len(made[0]) - 64 < len(made[1]) <= len(made[0])


class Leaving(Slow):
    """Answers some, then nothing; after a while it is known to be away."""

    async def _ask(self, request: ChatRequest) -> ChatReply | NoReply:
        if self.num_asked >= self._limit:
            self.num_asked += 1
            await asyncio.sleep(0)
            if self.num_asked > self._limit + 16:
                raise TeacherError("nobody is there")
            return NoReply("the connection is refused")
        return await super()._ask(request)


@pytest.mark.parametrize("num_well", [0, 40])
def test_while_one_teacher_is_away_the_others_go_on_and_nothing_is_paid_twice(tmp_path: Path, num_well: int) -> None:
    wanted = work((90, 70))
    never = outcomes(wanted, tmp_path / "never.jsonl", [Slow("a", 8, 0), Slow("b", 8, 0)])
    path = tmp_path / "log.jsonl"
    a, b = Slow("a", 8, 1), Leaving("b", 8, 1, num_well)
    away = outcomes(wanted, path, [a, b])
    waiting = {e.name for e in away if isinstance(e.outcome, Failed) and not e.outcome.is_final}
    done = [(e, first) for e, first in zip(away, never, strict=True) if e.name not in waiting]
    assert [e for e, _ in done] == [first for _, first in done], "what is done is as it would be"
    # Scripts that see no other go on to the end: of the first task each second one is a's.
    few = {name.number for name in waiting if (name.recipe, name.task) == ("few_shot", "task 0")}
    assert few
    assert all(number % 2 for number in few), "only those of the one that is away"
    assert outcomes(wanted, path, [Slow("a", 8, 2), Slow("b", 8, 2)]) == never
    logs = [
        sorted(line["request"] for line in lines_of(p) if not line["for"].startswith("probe"))
        for p in (path, tmp_path / "never.jsonl")
    ]
    assert logs[0] == logs[1], "no request was made for what is not so"


# ---------------------------------------------------------------- replicas


class Worker:
    """`Replica` that is lost after some batches."""

    def __init__(self, num_well: int, is_final: bool = False, error: Exception | None = None) -> None:
        self.num_well, self.is_final, self.error = num_well, is_final, error
        self.batches: list[list[ChatRequest]] = []
        self.num_begun = 0

    async def begin(self) -> None:
        self.num_begun += 1

    async def answers(self, requests: Sequence[ChatRequest]) -> Sequence[Outcome]:
        await asyncio.sleep(0)
        if len(self.batches) == self.num_well:
            self.num_well = -1
            raise self.error or LostReplicaError("its node died", self.is_final)
        self.batches.append([*requests])
        return [ChatReply(request.key) for request in requests]


def asked(num: int, workers: Sequence[Worker]) -> list[Outcome]:
    @asynccontextmanager
    async def replicas() -> AsyncIterator[Sequence[Worker]]:
        yield workers

    async def run() -> list[Outcome]:
        async with LocalTeacher("f", "t", 64, replicas).opened() as ask:
            draw = random.Random(1)
            requests = [
                ChatRequest(str(i), [{"role": "user", "content": "x" * draw.randrange(500)}], 8, temperature=i % 2)
                for i in range(num)
            ]
            return await asyncio.gather(*map(ask, requests))

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_requests_of_a_lost_replica_are_asked_again_and_each_is_answered_once() -> None:
    for workers in ([Worker(9)], [Worker(1), Worker(0, is_final=True), Worker(99)]):
        found = asked(150, workers)
        assert [reply.text for reply in found if isinstance(reply, ChatReply)] == [str(i) for i in range(150)]
        batches = [batch for worker in workers for batch in worker.batches]
        assert sum(map(len, batches)) == 150
        assert all(len(batch) <= BATCH and len({one.temperature for one in batch}) == 1 for batch in batches)
        lengths = [[len(request.messages[0]["content"]) for request in batch] for batch in batches]
        assert sum(max(own) - min(own) for own in lengths) / len(lengths) < 400, "of like length"


def test_when_all_replicas_are_gone_or_one_cannot_be_loaded_it_is_one_message() -> None:
    with pytest.raises(TeacherError, match="its node died"):
        asked(150, [Worker(1, is_final=True), Worker(0, is_final=True)])
    with pytest.raises(TeacherError, match="no weights"):
        asked(150, [Worker(1, error=TeacherError("no weights")), Worker(99)])
    with pytest.raises(ZeroDivisionError):
        asked(150, [Worker(1, error=ZeroDivisionError()), Worker(99)])
