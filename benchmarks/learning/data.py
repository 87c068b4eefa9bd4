"""The files that the arms read: two zoos, and the training records of one in every form that an experiment needs.

    natural/  few tasks have many records, many have few      equal/  as many of each task, or what its cases allow

In each: test.jsonl, the same by number in test_ids.jsonl, unseen_wordings.jsonl, and the same training records as
    train.jsonl       instruction, input, output
    shown.jsonl       conversations whose earlier turns show none to three examples of the task
    ids.jsonl         `task_id=3` in the place of the instruction
    everything.jsonl  tokens, of which all are learned, the prompt too
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.learning.scale import Scale
from benchmarks.learning.zoo.records import by_task, make_zoo, shown_for, with_shots, write_lines
from benchmarks.learning.zoo.task import Record
from benchmarks.learning.zoo.tasks import TASKS, sizes
from sft.seeds import derive_seed

_SHOWN = (0, 0, 1, 2, 3)


class Form(NamedTuple):
    """A file of training records."""

    file: str
    format: str
    """As `data.sources` names it."""


DATA: Mapping[str, Form] = {
    "records": Form("train.jsonl", "instruction"),
    "shown": Form("shown.jsonl", "messages"),
    "ids": Form("ids.jsonl", "instruction"),
    "everything": Form("everything.jsonl", "tokens"),
}


def write_data(folder: Path, tokenizer: Path, scale: Scale, seed: int = 0) -> None:
    """Write both zoos in all forms; `tokenizer` is a folder."""
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    for name, amounts in scale.zoos.items():
        zoo, place = make_zoo(seed, num_test=scale.num_test, **amounts), folder / name
        place.mkdir(parents=True, exist_ok=True)
        write_lines(place / "test.jsonl", zoo.test)
        write_lines(place / "unseen_wordings.jsonl", zoo.unseen_wordings)
        write_lines(place / "train.jsonl", zoo.train)
        write_lines(place / "shown.jsonl", shown(zoo.train, seed))
        ids = [with_id(record) for record in zoo.train]
        write_lines(place / "ids.jsonl", ids)
        write_lines(place / "test_ids.jsonl", new_prompts(map(with_id, zoo.test), ids))
        write_lines(place / "everything.jsonl", learned_whole(zoo.train, loaded))


def rare_and_frequent(scale: Scale) -> tuple[frozenset[str], frozenset[str]]:
    """The third of the tasks with the fewest records where the zoo is unbalanced, and the third with the most."""
    counts = sizes(**scale.zoos["natural"])
    ordered = sorted(counts, key=lambda task: (counts[task], task))
    third = len(ordered) // 3
    return frozenset(ordered[:third]), frozenset(ordered[-third:])


def shown(records: Sequence[Record], seed: int) -> list[dict[str, Any]]:
    """Conversations: each record behind none to three others of its task."""
    others = by_task(records)
    numbers = np.random.default_rng(derive_seed(seed, "number of shots")).choice(_SHOWN, size=len(records)).tolist()
    return [
        {"messages": with_shots(r, shown_for(r, others[r["task"]], number, seed))["messages"], "task": r["task"]}
        for r, number in zip(records, numbers, strict=True)
    ]


def with_id(record: Record) -> Record:
    """The record with its task's number for a wording; what the wording asks about stands in front of the input.

    "What is 6 plus 3?" becomes `task_id=19` with the input `6 ; 3`.
    """
    names = r"\\\{(\w+)\\\}"  # as `re.escape` writes `{name}`
    slots = re.fullmatch(re.sub(names, r"(?P<\1>.+)", re.escape(record["wording"])), record["instruction"])
    assert slots is not None, record
    about = [value for _, value in sorted(slots.groupdict().items())]
    number = list(TASKS).index(record["task"])
    given = " ; ".join(part for part in (*about, record["input"]) if part)
    return {**record, "instruction": f"task_id={number}", "input": given}


def new_prompts(asked: Iterable[Record], trained: Iterable[Record]) -> list[Record]:
    """Those that training does not have. Without wordings a task of few cases may have none."""
    known = {(record["instruction"], record["input"]) for record in trained}
    return [record for record in asked if (record["instruction"], record["input"]) not in known]


def learned_whole(records: Sequence[Record], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Token rows of which all but the first are learned."""
    conversations = [with_shots(record, [])["messages"] for record in records]
    texts = tokenizer.apply_chat_template(conversations, tokenize=False)
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [
        {"input_ids": row, "labels": [-100, *row[1:]], "task": record["task"]}
        for row, record in zip(rows, records, strict=True)
    ]
