"""Tunes the base model in plain torch and asks it: a quick look at whether the zoo is learned, without `sft`.

    python -m benchmarks.learning.quick_look BASE --train strings,counting,… --tokens 500_000 --shots 0,2

Exact match by `generate`, greedy; of classification also the share of right choices by log-likelihood.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from benchmarks.learning.base import NO_LABEL, Row, loss_of, optimizer_of, padded, rate_at, update
from benchmarks.learning.zoo.records import Zoo, by_task, make_zoo, shown_for, with_shots
from benchmarks.learning.zoo.task import Record
from benchmarks.learning.zoo.tasks import CLUSTERS, TASKS
from sft.seeds import derive_seed

_MOST_NEW_TOKENS = 24
_BATCH = 256


def encode(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[dict[str, Any]]]) -> list[Row]:
    """Tokens of which the last answer and its end are learned."""
    prompts = [
        tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, tokenize=False) for turns in conversations
    ]
    answers = [f"{turns[-1]['content']}<|im_end|>" for turns in conversations]
    ids = [tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, answers)]
    return [(prompt + answer, [NO_LABEL] * len(prompt) + answer) for prompt, answer in zip(*ids, strict=True)]


def batches(examples: list[Row], seed: int, batch_tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Epochs without end: tokens and labels (rows, longest), and the number of tokens without padding."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(examples)).tolist()
        for start in range(0, len(order), 1024):
            pool = sorted(order[start : start + 1024], key=lambda place: len(examples[place][0]))
            rows = max(1, batch_tokens * len(pool) // sum(len(examples[place][0]) for place in pool))
            groups = [pool[first : first + rows] for first in range(0, len(pool), rows)]
            for place in rng.permutation(len(groups)):
                yield padded([examples[number] for number in groups[place]])


def tune(model: LlamaForCausalLM, examples: list[Row], num_tokens: int, seed: int, rate: float) -> None:
    optimizers, seen = [optimizer_of(model)], 0
    for tokens, labels, count in batches(examples, seed, 2048):
        update(model, optimizers, loss_of(model, tokens, labels), rate_at(seen / num_tokens, rate))
        seen += count
        if seen >= num_tokens:
            return


@torch.no_grad()
def answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]) -> list[str]:
    """What the model writes, in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    said = [""] * len(prompts)
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        longest = len(prompts[places[-1]])
        tokens = torch.tensor([[0] * (longest - len(prompts[place])) + prompts[place] for place in places])
        written = model.generate(
            input_ids=tokens, attention_mask=(tokens != 0).long(), do_sample=False, max_new_tokens=_MOST_NEW_TOKENS
        )
        texts = tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)
        for place, text in zip(places, texts, strict=True):
            said[place] = text
    return said


@torch.no_grad()
def choices(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, records: Sequence[Record]) -> list[bool]:
    """For each record with options, whether the right one is likeliest (log-likelihood, summed)."""
    right = []
    for record in records:
        turns = [[*record["messages"][:-1], {"role": "assistant", "content": option}] for option in record["options"]]
        tokens, labels, _ = padded(encode(tokenizer, turns))
        logits = model(input_ids=tokens).logits[:, :-1].transpose(1, 2)
        losses = functional.cross_entropy(logits, labels[:, 1:], ignore_index=NO_LABEL, reduction="none").sum(1)
        right.append(record["options"][int(losses.argmin())] == record["output"])
    return right


def examples_of(
    tokenizer: PreTrainedTokenizerBase, records: list[Record], shots: Sequence[int], seed: int
) -> list[Row]:
    """Training examples: each record with one of these numbers of shown examples."""
    others, rng = by_task(records), np.random.default_rng(derive_seed(seed, "number of shots"))
    numbers = rng.choice(list(shots), size=len(records)).tolist()
    shown = [
        shown_for(r, others[r["task"]], number, seed) if number else []
        for r, number in zip(records, numbers, strict=True)
    ]
    return encode(tokenizer, [with_shots(*pair)["messages"] for pair in zip(records, shown, strict=True)])


def _prompt(tokens: list[int], labels: list[int]) -> list[int]:
    return [token for token, label in zip(tokens, labels, strict=True) if label == NO_LABEL]


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, asked: list[Record], zoo: Zoo, num_shots: int
) -> dict[str, float]:
    """Exact match by task."""
    others = by_task(zoo.train)
    records = [with_shots(r, shown_for(r, others[r["task"]], num_shots, 0) if num_shots else []) for r in asked]
    said = answers(model, tokenizer, [_prompt(*row) for row in encode(tokenizer, [r["messages"] for r in records])])
    hits: dict[str, list[bool]] = {}
    for record, text in zip(records, said, strict=True):
        hits.setdefault(record["task"], []).append(text in record.get("references", [record["output"]]))
    return {task: float(np.mean(values)) for task, values in hits.items()}


@dataclass(frozen=True)
class Look:
    """One training, and what is asked after it."""

    clusters: Sequence[str]
    num_tokens: int
    seed: int = 0
    shots: Sequence[int] = (0,)
    """Numbers of shown examples in training; each record draws one of them."""
    ask_shots: Sequence[int] = (0,)
    per_task: int = 400
    num_test: int = 20
    rate: float = 1e-3


def run(base: Path, look: Look) -> dict[str, Any]:
    """Tune on clusters, ask the tasks of all: {"0 shots" | "2 shots" | "unseen wording": {task: exact match}}."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    zoo = make_zoo(look.seed, look.per_task, 1, look.num_test)
    began = time.monotonic()
    if look.num_tokens:
        trained = [record for record in zoo.train if record["cluster"] in look.clusters]
        examples = examples_of(tokenizer, trained, look.shots, look.seed)
        tune(model, examples, look.num_tokens, look.seed, look.rate)
    seconds = time.monotonic() - began
    model.eval()
    found: dict[str, Any] = {**asdict(look), "seconds": seconds}
    for number in look.ask_shots:
        found[f"{number} shots"] = measure(model, tokenizer, zoo.test, zoo, number)
    found["unseen wording"] = measure(model, tokenizer, zoo.unseen_wordings, zoo, 0)
    found["all seconds"] = time.monotonic() - began
    return found


def by_cluster(scores: dict[str, float]) -> dict[str, float]:
    return {name: float(np.mean([scores[task.name] for task in tasks])) for name, tasks in CLUSTERS.items()}


def show(found: dict[str, Any]) -> None:
    trained = set(found["clusters"])
    print(
        f"trained on {len(trained)} clusters in {found['seconds']:.0f} s, with questions {found['all seconds']:.0f} s"
    )
    for kind, scores in found.items():
        if not isinstance(scores, dict):
            continue
        means = by_cluster(scores)
        print(kind, *(f"{name}{'' if name in trained else '*'} {mean:.2f}" for name, mean in means.items()))
        for side, names in (("trained", trained), ("held out", set(CLUSTERS) - trained)):
            if names:
                values = np.array([scores[task.name] for name in names for task in CLUSTERS[name]])
                print(f"  {side}: mean {values.mean():.3f}, tasks with 0.8 or more: {(values >= 0.8).mean():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--train", default=",".join(CLUSTERS))
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shots", default="0", help="numbers of shown examples in training, such as 0,0,1,2,3")
    parser.add_argument("--ask-shots", default="0")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    shots, ask = ([int(number) for number in text.split(",")] for text in (a.shots, a.ask_shots))
    found = run(a.base, Look(a.train.split(","), a.tokens, a.seed, shots, ask, rate=a.rate))
    show(found)
    for task in TASKS:
        print(f"  {task:24}" + "".join(f" {scores[task]:.2f}" for scores in found.values() if isinstance(scores, dict)))
    if a.json:
        a.json.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
