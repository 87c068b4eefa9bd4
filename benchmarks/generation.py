"""How fast a model answers: batches beside one prompt at a time, ranks beside one process, options with shared prompts.

    python -m benchmarks.generation                 # the shape of a 135M model with random weights: about 25 minutes
    python -m benchmarks.generation --small         # a look at whether everything runs

Prompts have 20 to 200 tokens, answers 32, in one part also 128. One process has two threads, two ranks have one each.
All sides of a part are run in turn. `transformers` is its `generate`, called as its documentation does it, with prompts
as they come; ours are put into batches as a run does it, those of like length together. What the linear layers alone
would allow is measured first. A model that is split over ranks is also asked more prompts at a time, as a run does it.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks.in_turn import ratios_of, spread
from benchmarks.made_models import write_weights
from benchmarks.rank_processes import run_ranks
from sft.answering.choosing import log_likelihoods
from sft.answering.rounds import ROWS_IN_STEP, BatchSize, Lengths, rounds_of
from sft.answering.shared_prompts import shared_log_likelihoods
from sft.answering.whole_model import WholeModel, whole_copy
from sft.answering.writing import Prompted, Style, answering, write_answers
from sft.config import SftConfig
from sft.config_file import build_config
from sft.engine.engines import ENGINES
from sft.questions.question import Option
from sft.ranks.torch_ranks import TorchRanks
from sft.training.process import quiet_third_parties
from sft.world import World

_SHAPE = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
_SMALL = {**_SHAPE, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_SMALL |= {"num_key_value_heads": 2}
_VOCABULARY = 49_152
_STYLE = Style((_VOCABULARY - 1,))
_CPU = torch.device("cpu")
_BATCH = 16
_ANSWER, _LONG_ANSWER = 32, 128
_GOALS = {"batch of 16 / one at a time": 5.0, "two ranks / one process": 0.5}

Side = Callable[[], float]
"""Runs once; tokens a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_third_parties()
    transformers.utils.logging.disable_progress_bar()
    if options.rank is not None:
        _rank(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "model", _SMALL if options.small else _SHAPE, 512 if options.small else _VOCABULARY)
        torch.set_num_threads(2)
        _show_ceiling(folder, options.rounds)
        _compare_batches(folder, options, 4, _ANSWER)
        _compare_batches(folder, options, 2, _LONG_ANSWER)
        _compare_options(folder, options)
        _compare_ranks(folder, options)


def _show_ceiling(folder: Path, rounds: int) -> None:
    """The linear layers alone, by rows: what a batch of 16 could gain on this machine if all else cost nothing."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    head = model.get_output_embeddings()
    layers = [module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    weights = {1: [*layers, head.weight], _BATCH: [*layers, head.weight]}

    def seconds(rows: int) -> float:
        given = {weight.shape[1]: torch.randn(rows, weight.shape[1]) for weight in layers}
        began = time.perf_counter()
        for weight in weights.get(rows, layers):
            functional.linear(given[weight.shape[1]], weight)
        return time.perf_counter() - began

    with torch.no_grad():
        for length in (40, 110, 400):
            sizes = (1, _BATCH, length, 512)
            taken = {rows: min(seconds(rows) for _ in range(2 + rounds)) for rows in sizes}
            rates = [2e-9 * rows * sum(w.numel() for w in weights.get(rows, layers)) / taken[rows] for rows in sizes]
            speeds = ", ".join(f"{rates[i]:.0f} GFLOP/s for {rows}" for i, rows in enumerate(sizes))
            sys.stdout.write(f"linear layers alone, by rows: {speeds}\n")
            for written in (_ANSWER, _LONG_ANSWER):
                alone = taken[length] + written * taken[1]
                in_batch = length * taken[512] / 512 + written * taken[_BATCH] / _BATCH
                shape = f"prompts of {length}, answers of {written}"
                sys.stdout.write(f"  a batch of 16 / one at a time, {shape}: {alone / in_batch:.2f} at most\n")


def _compare_batches(folder: Path, options: argparse.Namespace, num_batches: int, answer: int) -> None:
    """Answers of `answer` tokens; one at a time are those of one of the batches."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    prompts = _prompts(model.config.vocab_size, num_batches * _BATCH, answer)
    mixed = [prompts[i::num_batches] for i in range(num_batches)]
    rounds = rounds_of([Lengths(len(p.prompt_ids), answer) for p in prompts], 1, BatchSize(rows=_BATCH), seed=17)
    alike = [[prompts[i] for i in batch] for [batch] in rounds]
    speeds = _in_turn(
        {
            "one at a time": lambda: _plain(model, [[prompt] for prompt in mixed[0]]),
            "transformers, batch of 16": lambda: _plain(model, mixed),
            "batch of 16": lambda: _ours(model, alike),
        },
        options.rounds,
    )
    shape = f"answers of {answer}: batch of 16"
    _show(f"{shape} / one at a time", speeds["batch of 16"], speeds["one at a time"])
    _show(f"{shape} / transformers, batch of 16", speeds["batch of 16"], speeds["transformers, batch of 16"])


def _compare_options(folder: Path, options: argparse.Namespace) -> None:
    """Four options of four tokens behind a prompt of 40, or 200: options a second."""
    whole = WholeModel(_config(folder), str(folder / "model"), World())
    draw = np.random.default_rng(0)
    for length in (10, 40, 200):
        questions = []
        for _ in range(8):
            prompt = tuple(draw.integers(1, 500, length).tolist())
            rests = [tuple(draw.integers(1, 500, 4).tolist()) for _ in range(4)]
            questions.append([Option((*prompt, *rest), length) for rest in rests])

        def shared(questions: list[list[Option]] = questions) -> float:
            began = time.perf_counter()
            with answering(whole.hf_model, "sdpa"):
                shared_log_likelihoods(whole.hf_model, questions, _CPU)
            return 32 / (time.perf_counter() - began)

        def packed(questions: list[list[Option]] = questions) -> float:
            began = time.perf_counter()
            log_likelihoods(whole, [option for own in questions for option in own], "packed")
            return 32 / (time.perf_counter() - began)

        speeds = _in_turn({f"shared, {length}": shared, f"packed, {length}": packed}, options.rounds, "options")
        _show(f"shared / packed, prompts of {length} tokens", *speeds.values())


def _compare_ranks(folder: Path, options: argparse.Namespace) -> None:
    """Under ZeRO-3, with a copy on each rank and split, beside one process with the plain engine: the same prompts.

    A split model is also asked more at a time: 64 a rank, half of what a run puts together.
    """
    both = ["--folder", str(folder), "--rounds", str(options.rounds)]
    results = []
    for size in (1, 2):
        there = folder / f"of-{size}"
        there.mkdir()
        given = [["--rank", f"{rank}", *both, *(["--small"] if options.small else [])] for rank in range(size)]
        run_ranks(__file__, given, there, WORLD=str(size), OMP_NUM_THREADS=str(2 // size))
        results.append(json.loads((folder / f"speeds-{size}.json").read_text()))
    [alone], two = results[0].values(), results[1]
    for name, speeds in two.items():
        _show(f"{name}: two ranks / one process", speeds, alone)


def _rank(options: argparse.Namespace) -> None:
    size, folder = int(os.environ["WORLD"]), options.folder
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / f"meeting-{size}"), size), rank=options.rank, world_size=size
    )
    ranks, config = TorchRanks(World(options.rank, size, options.rank)), _config(folder)
    name = "zero3" if size > 1 else "plain"
    engine = ENGINES[name](config, config.stages[0].optimizer, config.model.path, ranks)
    vocabulary = engine.hf_model.config.vocab_size
    few, many = (_prompts(vocabulary, count)[options.rank :: size] for count in (_BATCH, size * ROWS_IN_STEP // 2))

    def answer(copied: bool, own: list[Prompted] = few) -> float:
        began = time.perf_counter()
        copies = whole_copy(engine, config, config.model.path, _CPU) if copied else nullcontext(engine.hf_model)
        with copies as writer, answering(writer, "sdpa"):
            write_answers(writer, own, _STYLE, _CPU, in_step=size > 1 and not copied)
        dist.barrier()
        return size * len(own) * own[0].max_new_tokens / (time.perf_counter() - began)

    sides: dict[str, Side] = {"": lambda: answer(False)}
    if size > 1:
        asked_many = f"split, {ROWS_IN_STEP // 2} prompts a rank"
        sides = {
            "copied": lambda: answer(True),
            "split": lambda: answer(False),
            asked_many: lambda: answer(False, many),
        }
    speeds = _in_turn(sides, options.rounds, "tokens" if options.rank == 0 else "")
    if options.rank == 0:
        (folder / f"speeds-{size}.json").write_text(json.dumps(speeds))


def _in_turn(sides: Mapping[str, Side], rounds: int, what: str = "tokens") -> dict[str, list[float]]:
    for run in sides.values():
        run()  # the first one is slower
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            speeds[name].append(run())
    for name, values in speeds.items():
        if what:
            sys.stdout.write(f"{name}: {spread(values, ',.1f')} {what}/s\n")
    return speeds


def _show(name: str, ours: list[float], others: list[float]) -> None:
    ratios = ratios_of(ours, others)
    goal = next((f", goal {goal:g}" for part, goal in _GOALS.items() if name.endswith(part)), "")
    sys.stdout.write(f"  {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){goal}\n")
    sys.stdout.flush()


def _prompts(vocabulary: int, count: int = _BATCH, answer: int = _ANSWER) -> list[Prompted]:
    draw = np.random.default_rng(0)
    lengths = np.linspace(20, 200, count).astype(int)
    ids = [tuple(draw.integers(1, vocabulary - 2, length).tolist()) for length in lengths]
    return [Prompted(f"{i}", prompt, answer) for i, prompt in enumerate(ids)]


def _plain(model: Any, batches: list[list[Prompted]]) -> float:
    """transformers' own, with prompts padded on the left."""
    began, count = time.perf_counter(), 0
    for batch in batches:
        longest = max(len(prompt.prompt_ids) for prompt in batch)
        pads = [longest - len(prompt.prompt_ids) for prompt in batch]
        ids = torch.tensor([[0] * pad + list(p.prompt_ids) for pad, p in zip(pads, batch, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
        answer = batch[0].max_new_tokens
        settings = GenerationConfig(max_new_tokens=answer, min_new_tokens=answer, do_sample=False, pad_token_id=0)
        output = model.generate(ids, attention_mask=mask, generation_config=settings)
        count += len(batch) * (output.shape[1] - longest)
    return count / (time.perf_counter() - began)


def _ours(model: Any, batches: list[list[Prompted]]) -> float:
    began, count = time.perf_counter(), 0
    with answering(model, "sdpa"):
        for batch in batches:
            count += sum(len(written.ids) for written in write_answers(model, batch, _STYLE, _CPU))
    return count / (time.perf_counter() - began)


def _config(folder: Path) -> SftConfig:
    return build_config(
        {
            "run": {"name": "generation", "dir": str(folder / "run")},
            "model": {"path": str(folder / "model"), "dtype": "float32"},
            "data": {"sources": [{"name": "s", "path": "s.jsonl", "format": "messages"}], "max_len_tokens": 512},
            "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-5}}],
            "train": {"pack_len_tokens": 512, "packs_per_step": 2, "activation_checkpointing": False},
        }
    )


if __name__ == "__main__":
    main()
