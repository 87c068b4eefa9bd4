"""Which held-out records are asked, and which may be shown with them: pure functions of store, config and seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sft.config import SftConfig
from sft.data.duplicates import hash_record
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.trainable import trainable_examples
from sft.data.token_store import TokenStore
from sft.schema import Conversation, IntArray
from sft.seeds import derive_seed

_CANDIDATES_PER_SHOT = 16
"""Of each task, this many times the largest number of shots are read again, to draw the shown examples from."""


class RecordKey(NamedTuple):
    """Identifies a record of a store, in the order of the sources."""

    source_id: int
    number: int
    instance: int
    """From 1; 0 in a record that has none."""


class Chosen(NamedTuple):
    """The records of a task: those that are asked, and those that may be shown."""

    asked: tuple[RecordKey, ...]
    showable: tuple[RecordKey, ...]


def choose_records(config: SftConfig, store: TokenStore, heldout: PackPlan) -> Mapping[str, Chosen]:
    """Task → its records, for each task that is asked.

    Shown are records that are trained on. A task that is never trained on shows other held-out records of its own.
    """
    evaluate, seed = config.evaluate, config.run.seed
    measured, may_train = np.sort(np.array(heldout.example_ids)), trainable_examples(store, config.data.holdout)
    chosen = {}
    for task_id, task in enumerate(store.tasks):
        rng = np.random.default_rng(derive_seed(seed, "questions", task))
        asked = _keys(store, rng.permutation(measured[store.task_ids[measured] == task_id]))
        asked = asked[: evaluate.num_answers(task)]
        if not asked:
            continue
        num_candidates = max(evaluate.shots_of(task)) * _CANDIDATES_PER_SHOT
        own = np.flatnonzero(store.task_ids == task_id)
        trained = own[may_train[own]]
        candidates = rng.permutation(trained if len(trained) else own)[: 2 * num_candidates]
        chosen[task] = Chosen(asked, _keys(store, candidates)[:num_candidates])
    return chosen


def order_of_showing(seed: int, asked: RecordKey, candidates: Sequence[RecordKey]) -> list[RecordKey]:
    """The candidates in the order in which they are shown with a record, which is not among them.

    One shot is the first of three, so that numbers of shots can be compared.
    """
    rng = np.random.default_rng(derive_seed(seed, "shots", *map(str, asked)))
    return [candidates[i] for i in rng.permutation(len(candidates)) if candidates[i] != asked]


def giving_nothing_away(asked: Conversation, candidates: Iterable[Conversation]) -> Iterator[Conversation]:
    """The candidates that do not hold the question that is asked, in their order, each prompt once.

    Examples are shown without their system texts, so these do not count: the same question below another system text
    would show its answer. Case and white space do not count either.

    Args:
        asked: ends with the answer to the question.
        candidates: of the same task.
    """
    seen = {hash_record(asked).prompt}
    question = _user_turns(asked)[-1:]
    for candidate in candidates:
        prompt = hash_record(candidate).prompt
        if prompt not in seen and not set(question) & set(_user_turns(candidate)):
            seen.add(prompt)
            yield candidate


def _user_turns(conversation: Conversation) -> list[int]:
    """The hash of each turn of the user."""
    turns = [message for message in conversation.messages if message.role == "user"]
    return [hash_record(replace(conversation, messages=(turn,))).prompt for turn in turns]


def _keys(store: TokenStore, example_ids: IntArray) -> tuple[RecordKey, ...]:
    """The records of these examples, in their order, each once."""
    columns: Iterable[IntArray] = (store.source_ids, store.record_ids, store.instances)
    rows = zip(*(np.asarray(column[example_ids]).tolist() for column in columns), strict=True)
    return tuple(dict.fromkeys(RecordKey(*row) for row in rows))
