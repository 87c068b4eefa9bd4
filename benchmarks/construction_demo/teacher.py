"""The strong model of the demonstration: one that has learned much of each task, and what people ask of it.

It learns to answer, and to write the turn of a user behind a system text that shows two instructions of a task: what
the recipe `magpie` has it do.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.learning.base import NO_LABEL, Row
from benchmarks.learning.quick_look import encode, tune
from benchmarks.learning.zoo.records import by_task, shown_for, with_shots
from benchmarks.learning.zoo.task import Record
from sft.construction.prompts import Prompts
from sft.seeds import derive_seed

_RATE = 1e-3
NUM_SHOWN = 2
_TIMES_ANSWERED = 2
"""An answer is learned so often for each question: its rows are shorter."""


def train_teacher(base: Path, records: Path, folder: Path, num_tokens: int, seed: int = 0) -> None:
    """Tune the base model on `records` and write it to `folder`."""
    torch.manual_seed(derive_seed(seed, "teacher"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    given = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    answers = encode(tokenizer, [with_shots(record, [])["messages"] for record in given])
    model.train()
    tune(model, [*answers * _TIMES_ANSWERED, *questions(tokenizer, given, seed)], num_tokens, seed, _RATE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def questions(tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], seed: int) -> Iterator[Row]:
    """Tokens of which the user's turn and its end are learned."""
    prompts, others = Prompts(), by_task(records)
    for record in records:
        shown = [_prompt(other) for other in shown_for(record, others[record["task"]], NUM_SHOWN, seed)]
        system = prompts.render("magpie_system", task=record["task"], instructions=shown)
        asked = _prompt(record)
        turns = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        before = text[: text.rindex(asked)]
        given, learned = tokenizer([before, f"{asked}<|im_end|>"], add_special_tokens=False)["input_ids"]
        yield given + learned, [NO_LABEL] * len(given) + learned


def _prompt(record: Record) -> str:
    return str(with_shots(record, [])["messages"][0]["content"])
