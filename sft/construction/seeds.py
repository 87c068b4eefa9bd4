"""The records that a teacher is shown: some of each task, among those that training may use, never a held-out one.

A seed is a question and an answer that stand by themselves, as they are learned, with the system text before them. A
record that begins otherwise is none: its answer would be one to something that is not shown.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sft.config import SftConfig, SourceConfig
from sft.construction.counts import said_of_others
from sft.construction.recipes.recipe import Recipe, Seed
from sft.data.block_preparer import BlockPreparer
from sft.data.formats.formatting import expand_record
from sft.data.formats.grading import Grading, read_grading
from sft.data.planning.trainable import trainable_examples
from sft.data.reading.sources import read_records
from sft.data.token_store import TokenStore
from sft.draft import record_id
from sft.errors import RecordError, UserError
from sft.schema import Conversation, Message, Record, TokenizedRecord
from sft.seeds import derive_seed

MOST_SEEDS = 128
"""Of a task: as many as self-instruct had by hand, about."""

_Place = tuple[int, int, int]
"""Of a record: its source, its number there, and its instance (0: it has none)."""


class TaskSeeds(NamedTuple):
    """The records of a task that were drawn."""

    seeds: list[Seed]
    """Of each source, in a fixed order that the run's seed decides."""
    left_out: Counter[str]
    """How many of them are no seeds, by reason."""


def read_seeds(
    config: SftConfig, store: TokenStore, preparer: BlockPreparer, tasks: Collection[str]
) -> dict[str, TaskSeeds]:
    """Task → its seeds.

    Raises:
        UserError: a source cannot be read any more.
    """
    order = _choose(config, store, tasks)
    wanted = {place for places in order.values() for place in places}
    found = dict(_read(wanted, preparer))
    return {task: _sorted_out([found[place] for place in places if place in found]) for task, places in order.items()}


def _sorted_out(found: Collection[Seed | str]) -> TaskSeeds:
    seeds = [one for one in found if isinstance(one, Seed)]
    return TaskSeeds(seeds, Counter(one for one in found if isinstance(one, str)))


def seeds_of(recipe: Recipe, task: str, drawn: TaskSeeds, field: str) -> Sequence[Seed]:
    """Those of the recipe's sources that it may show.

    Raises:
        UserError: there are none.
    """
    if own := shown_seeds(recipe, drawn):
        return own
    where = f" in {', '.join(recipe.seeds)}" if recipe.seeds else ""
    others = said_of_others(drawn.left_out + not_taken(recipe, drawn))
    raise UserError(
        f"{field}: there is no record of the task {task!r}{where} that may be shown: one that is trained on, and "
        f"begins with a text of the user and a text as answer that is learned. {others}Choose other tasks "
        f"or seeds."
    )


def shown_seeds(recipe: Recipe, drawn: TaskSeeds) -> Sequence[Seed]:
    """Those of the recipe's sources that it may show; there may be none."""
    return [seed for seed in _of_sources(recipe, drawn) if recipe.takes_system or not seed.system]


def not_taken(recipe: Recipe, drawn: TaskSeeds) -> Counter[str]:
    """How many seeds of its sources the recipe cannot show, by reason."""
    num = 0 if recipe.takes_system else sum(bool(seed.system) for seed in _of_sources(recipe, drawn))
    return Counter({f"a system text, which {recipe.kind} cannot show": num} if num else {})


def _of_sources(recipe: Recipe, drawn: TaskSeeds) -> list[Seed]:
    return [seed for seed in drawn.seeds if not recipe.seeds or seed.source in recipe.seeds]


def _choose(config: SftConfig, store: TokenStore, tasks: Collection[str]) -> Mapping[str, list[_Place]]:
    may_show, chosen = trainable_examples(store, config.data.holdout), {}
    for task in sorted(tasks):
        rng = np.random.default_rng(derive_seed(config.run.seed, "construct", "seeds", task))
        own = np.flatnonzero((store.task_ids[:] == store.tasks.index(task)) & may_show)
        places: list[_Place] = []
        for source_id in range(len(store.manifest["sources"])):
            # A conversation may have become several examples.
            of_source = rng.permutation(own[store.source_ids[own] == source_id])[: 2 * MOST_SEEDS]
            numbers, instances = store.record_ids[of_source].tolist(), store.instances[of_source].tolist()
            records = dict.fromkeys((source_id, number, i) for number, i in zip(numbers, instances, strict=True))
            places += list(records)[:MOST_SEEDS]
        chosen[task] = places
    return chosen


def _read(wanted: Collection[_Place], preparer: BlockPreparer) -> Iterator[tuple[_Place, Seed | str]]:
    """Seeds, or why they are none; each source is read up to the last record that is wanted of it."""
    is_last_learned = preparer.data.train_on == "last_assistant"
    for source_id, source in enumerate(preparer.data.sources):
        numbers = {number for of, number, _ in wanted if of == source_id}
        for record in read_records(source) if numbers else ():
            if isinstance(record, Record) and record.index in numbers:
                for instance in expand_record(record, source):
                    place = (source_id, record.index, instance.where.instance or 0)
                    if place in wanted:
                        try:
                            content = preparer.pipeline.format(instance, source).content
                        except RecordError:
                            continue
                        yield place, seed_of(content, _grading(instance, source), is_last_learned=is_last_learned)
            if record.index >= max(numbers):
                break


def _grading(record: Record, source: SourceConfig) -> Grading:
    """What it says of right answers; nothing where that cannot be read: it can be shown all the same."""
    try:
        return read_grading(record.fields, source)
    except RecordError:
        return Grading()


def seed_of(content: Conversation | TokenizedRecord, grading: Grading, *, is_last_learned: bool) -> Seed | str:
    """The first question of a record and the answer to it; or what makes it none, as the end of "a record with …".

    Args:
        content: the record.
        grading: what it says of right answers.
        is_last_learned: whether of several answers only the last one is learned.
    """
    if isinstance(content, TokenizedRecord):
        return "token ids"
    turns = _spoken(content)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    if len(turns) < 2 or turns[0].role == "system":
        return "several system texts"
    question, answer = turns[:2]
    if question.role != "user":
        return "an answer before the first question"
    if content.tools or answer.tool_calls:
        return "tools"
    if not (question.content.strip() and answer.content.strip()):
        return "no text as first question or answer"
    if not answer.train or (is_last_learned and len(turns) > 2):
        return "a first answer that is not learned"
    before = [{"role": "system", "content": system}] if system else []
    messages = [*before, *({"role": turn.role, "content": turn.content} for turn in (question, answer))]
    of = record_id({"messages": messages, "task": content.task})
    return Seed(of, question.content, answer.content, content.source, grading.tests, grading.setup_code, system)


def _spoken(conversation: Conversation) -> list[Message]:
    """Its turns, two at least, without an empty system text."""
    return [turn for turn in conversation.messages if turn.role != "system" or turn.content.strip()]
