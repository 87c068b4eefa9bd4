"""Data for the benchmarks, made on any machine: records as long as those of Dolly and of GSM8K, in real English.

The texts are runs of words from what `pydoc` says of Python's language and from the docstrings of the standard library.
So the words are as uneven as those of any prose, and the same Python gives the same records. Lengths are log-normal,
with the medians and deviations (of the logarithm) of the two data sets; in words:

    dolly    instruction 10 (0.6), context 131 (0.81) in three of ten records, response 31 (1.3)
    gsm8k    question 42 (0.4), answer 47 (0.5): sums with their calculations in << >>
"""

import functools
import json
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sft.quickstart.stdlib_tasks import build_records

NUM_RECORDS = {"dolly": 13_535, "gsm8k": 7_473}
"""What the two sets hold."""
_RUN_WORDS = 8
"""Words that follow each other as in their source: enough for the tokenizer to meet ordinary words."""
_CONTEXT_SHARE = 0.3
_LONGEST = {"instruction": 400, "context": 3000, "response": 2500, "question": 200, "answer": 300}


@functools.cache
def words() -> list[str]:
    """The words of the sources, in their order."""
    texts = [*pydoc_data.topics.topics.values(), *(record["output"] for record in build_records())]
    return " ".join(texts).split()


def write_data(path: Path, kind: str, num_records: int | None = None, seed: int = 0) -> Path:
    """Write JSON lines with the columns `instruction`, `context` and `response`, whichever kind."""
    rng = np.random.default_rng(seed)
    make = _MAKERS[kind]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(NUM_RECORDS[kind] if num_records is None else num_records):
            file.write(json.dumps(make(rng), ensure_ascii=False) + "\n")
    return path


def dolly_record(rng: np.random.Generator) -> dict[str, str]:
    """A record with the three columns."""
    has_context = rng.random() < _CONTEXT_SHARE
    return {
        "instruction": _text(rng, "instruction", 10, 0.6),
        "context": _text(rng, "context", 131, 0.81) if has_context else "",
        "response": _text(rng, "response", 31, 1.3),
    }


def dolly_pair(rng: np.random.Generator) -> tuple[str, str]:
    """Its prompt, with the context, and its answer."""
    record = dolly_record(rng)
    return f"{record['instruction']}\n\n{record['context']}".strip(), record["response"]


def _gsm8k(rng: np.random.Generator) -> dict[str, str]:
    question = _text(rng, "question", 42, 0.4)
    answer = _text(rng, "answer", 47, 0.5).split()
    for place in range(6, len(answer), 14):
        a, b = rng.integers(2, 100, 2).tolist()
        answer[place] = f"{a} * {b} = <<{a}*{b}={a * b}>>{a * b}"
    return {"instruction": question, "context": "", "response": " ".join(answer) + f"\n#### {rng.integers(1, 1000)}"}


_MAKERS: dict[str, Callable[[np.random.Generator], dict[str, str]]] = {"dolly": dolly_record, "gsm8k": _gsm8k}


def _text(rng: np.random.Generator, column: str, median: float, deviation: float) -> str:
    count = min(max(1, round(rng.lognormal(np.log(median), deviation))), _LONGEST[column])
    known = words()
    starts = rng.integers(0, len(known) - _RUN_WORDS, -(-count // _RUN_WORDS)).tolist()
    return " ".join([word for start in starts for word in known[start : start + _RUN_WORDS]][:count])


def in_common_columns(source: Path, target: Path, num_records: int | None = None) -> Path:
    """Copy Dolly's or GSM8K's own JSON lines, with the columns that all benchmarks read."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as file:
        for number, row in enumerate(map(json.loads, lines)):
            if number == num_records:
                break
            asked = row.get("instruction", row.get("question"))
            said = row.get("response", row.get("answer"))
            kept = {"instruction": asked, "context": row.get("context", ""), "response": said}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    return target
