"""The records that a teacher is shown: some of each task, among those that training may use, never a held-out one."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from sft.config import SftConfig, SourceConfig
from sft.construction.recipes.recipe import Seed
from sft.data.block_preparer import BlockPreparer
from sft.data.formats.formatting import expand_record
from sft.data.formats.grading import Grading, read_grading
from sft.data.planning.trainable import trainable_examples
from sft.data.reading.sources import read_records
from sft.data.token_store import TokenStore
from sft.draft import record_id
from sft.errors import RecordError
from sft.schema import Conversation, Record
from sft.seeds import derive_seed

MOST_SEEDS = 128
"""Of a task: as many as self-instruct had by hand, about."""

_Place = tuple[int, int, int]
"""Of a record: its source, its number there, and its instance (0: it has none)."""


def read_seeds(
    config: SftConfig, store: TokenStore, preparer: BlockPreparer, tasks: Collection[str]
) -> dict[str, list[Seed]]:
    """Task → its seeds of each source, in a fixed order that the run's seed decides.

    Raises:
        UserError: a source cannot be read any more.
    """
    order = _choose(config, store, tasks)
    wanted = {place for places in order.values() for place in places}
    found = dict(_read(wanted, preparer))
    return {task: [found[place] for place in places if place in found] for task, places in order.items()}


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


def _read(wanted: Collection[_Place], preparer: BlockPreparer) -> Iterator[tuple[_Place, Seed]]:
    """Each source is read up to the last record that is wanted of it."""
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
                        seed = _seed(content, _grading(instance, source)) if isinstance(content, Conversation) else None
                        if seed is not None:
                            yield place, seed
            if record.index >= max(numbers):
                break


def _grading(record: Record, source: SourceConfig) -> Grading:
    """What it says of right answers; nothing where that cannot be read: it can be shown all the same."""
    try:
        return read_grading(record.fields, source)
    except RecordError:
        return Grading()


def _seed(conversation: Conversation, grading: Grading) -> Seed | None:
    """None where no text answers the first question, as in a conversation with tools."""
    turns = [message for message in conversation.messages if message.role != "system"]
    if conversation.tools or len(turns) < 2 or not turns[0].content.strip() or not turns[1].content.strip():
        return None
    messages = [{"role": turn.role, "content": turn.content} for turn in turns[:2]]
    of = record_id({"messages": messages, "task": conversation.task})
    return Seed(of, turns[0].content, turns[1].content, conversation.source, grading.tests, grading.setup_code)
