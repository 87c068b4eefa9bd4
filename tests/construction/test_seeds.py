"""A seed is a question and its answer as training learns them; what stands by itself alone is shown."""

from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest

from sft.construction.counts import said_of_others
from sft.construction.recipes.recipe import Seed
from sft.construction.recipes.registry import RECIPES, read_recipes
from sft.construction.seeds import TaskSeeds, seed_of, seeds_of
from sft.construction.task_choice import choose_tasks
from sft.construction.wanted import Supervised
from sft.data.formats.grading import Grading
from sft.data.formats.messages import read_messages
from sft.errors import UserError
from sft.schema import Conversation, RecordLocation

ASKED, ANSWERED = {"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"}
HELLO, FRENCH = {"role": "assistant", "content": "Hello"}, {"role": "system", "content": "Answer in French."}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
MORE = [{"role": "user", "content": "And 3+3?"}, {"role": "assistant", "content": "6"}]
NOT_LEARNED = "a first answer that is not learned"


def found(*turns: dict[str, Any], is_last_learned: bool = False, tools: Any = ()) -> Seed | str:
    messages = read_messages({"messages": [*turns]}, {})
    conversation = Conversation(messages, "sums", "by_hand", 0, RecordLocation("x", 1), tools)
    return seed_of(conversation, Grading(), is_last_learned=is_last_learned)


def test_a_seed_is_the_first_question_and_the_answer_to_it() -> None:
    for one in (found(ASKED, ANSWERED), found({"role": "system", "content": " "}, ASKED, ANSWERED, *MORE)):
        assert isinstance(one, Seed)
        assert (one.prompt, one.answer, one.source) == ("What is 2+2?", "4", "by_hand")
    assert isinstance(found(ASKED, ANSWERED, is_last_learned=True), Seed)


def test_a_seed_has_the_system_text_on_which_its_answer_depends() -> None:
    one, bare = found(FRENCH, ASKED, ANSWERED), found(ASKED, ANSWERED)
    assert isinstance(one, Seed)
    assert isinstance(bare, Seed)
    assert (one.system, one.prompt, bare.system) == ("Answer in French.", "What is 2+2?", "")
    assert one.id != bare.id
    assert isinstance(found(FRENCH, ASKED, ANSWERED, is_last_learned=True), Seed)


def test_only_a_recipe_that_cannot_show_a_system_text_is_refused_where_all_seeds_have_one() -> None:
    seeds = TaskSeeds([Seed(f"{i}", "p", "a", "by_hand", system="Answer in French.") for i in range(3)], Counter())
    for kind in RECIPES.keys() - {"from_documents", "tool_calls"}:
        more = {"verify": "numbers"} if kind == "rejection_sampling" else {}
        (recipe,) = read_recipes([{"kind": kind, "num": 3, **more}])
        if kind == "magpie":
            with pytest.raises(UserError, match="3 with a system text, which magpie cannot show"):
                seeds_of(recipe, "sums", seeds, "construct.recipes: magpie.tasks")
        else:
            assert len(seeds_of(recipe, "sums", seeds, "")) == 3


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([HELLO, ASKED, ANSWERED], "an answer before the first question"),
        ([FRENCH, HELLO, ASKED, ANSWERED], "an answer before the first question"),
        ([FRENCH, ASKED, {**ANSWERED, "train": False}, *MORE], NOT_LEARNED),
        ([ASKED, {**ANSWERED, "train": False}, *MORE], NOT_LEARNED),
        ([ASKED, {**ANSWERED, "weight": 0}, *MORE], NOT_LEARNED),
        ([ASKED, CALL, {"role": "tool", "content": "4"}, ANSWERED], "tools"),
    ],
)
def test_a_record_whose_answer_is_to_something_else_or_not_learned_is_no_seed(turns: Any, why: str) -> None:
    assert found(*turns) == why


def test_what_is_not_learned_in_this_config_is_no_seed() -> None:
    assert found(ASKED, ANSWERED, *MORE, is_last_learned=True) == NOT_LEARNED


def test_records_that_are_no_seeds_are_counted_where_none_is_left() -> None:
    (recipe,) = read_recipes([{"kind": "few_shot", "num": 3}])
    left_out = Counter({"a system text": 1200, NOT_LEARNED: 1})
    said = "Not shown: 1,200 with a system text, 1 with a first answer that is not learned."
    assert said_of_others(left_out).strip() == said
    with pytest.raises(UserError, match=said):
        seeds_of(recipe, "sums", TaskSeeds([], left_out), "construct.recipes: few_shot.tasks")


def test_rare_and_all_make_nothing_of_a_task_without_seeds_and_the_others_share_its_number() -> None:
    tokens = {"chat": 1000, "sums": 10, "calls": 10, "dates": 20}
    supervised = {task: Supervised(num, num // 10) for task, num in tokens.items()}
    drawn = {task: TaskSeeds([Seed(task, "p", "a", "by_hand")], Counter()) for task in supervised}
    drawn["calls"] = TaskSeeds([], Counter({"tools": 4}))
    asked: list[str] = []

    def read(tasks: Collection[str]) -> dict[str, TaskSeeds]:
        asked.extend(tasks)
        return {task: drawn[task] for task in tasks}

    forms = [{"kind": "few_shot", "num": 1}, {"kind": "evolve", "tasks": "all", "num": 9}]
    recipes = read_recipes([*forms, {"kind": "self_instruct", "num": 3, "tasks": ["calls"]}])
    chosen = choose_tasks(recipes, supervised, read)
    assert [*map(dict, chosen.wanted)] == [{"sums": 1}, {"chat": 3, "sums": 3, "dates": 3}, {"calls": 3}]
    assert chosen.without_seeds == {"evolve": ["calls"]}
    assert sorted(asked) == sorted(supervised), "each is read once"
    target = {**forms[0], "num": 99, "tokens_per_task": 25}
    assert [*map(dict, choose_tasks(read_recipes([target]), supervised, read).wanted)] == [{"sums": 2, "dates": 1}]
    # Where there is no other task, the reason is said.
    chosen = choose_tasks(read_recipes([forms[0]]), {task: supervised[task] for task in ("chat", "calls")}, read)
    assert [*map(dict, chosen.wanted)] == [{"calls": 1}]
    with pytest.raises(UserError, match="no record of the task 'calls' that may be shown.* 4 with tools"):
        seeds_of(recipes[0], "calls", chosen.seeds["calls"], "construct.recipes: few_shot.tasks")
