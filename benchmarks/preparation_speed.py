"""Speed of preparing data: from a file of records to the published token store, beside the tokenizer alone and a peer.

usage: python benchmarks/preparation_speed.py TOKENIZER_DIR DATA.jsonl [--runs 5] [--peer 'COMMAND']

DATA has Dolly's columns (instruction, context, response). All sides run in turn, each in a process of its own, so that
a machine whose speed drifts slows all of them. `raw` is `encode_batch_fast` of the tokenizers library on the rendered
texts, all in one call: nothing that uses it can be faster. `sft` is `prepare_store` as `sft prepare` calls it, with
reading, hashing, masks, the search for exact duplicates, writing and syncing, after the tokenizer is loaded (which is
printed apart). The peer's command prints a JSON line with `tokens_per_second`.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.in_turn import Side, compare, run_command

from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.preparation import prepare_store
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.chat_template import load_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--max-len", type=int, default=16_384, help="so that no example is left out as too long")
    parser.add_argument("--peer", help="a command that prints a JSON line with tokens_per_second")
    parser.add_argument("--side", choices=("raw", "sft"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    own = [sys.executable, __file__, str(options.tokenizer), str(options.data), "--max-len", str(options.max_len)]
    sides: dict[str, Side] = {side: partial(run_command, [*own, "--side", side]) for side in ("raw", "sft")}
    if options.peer:
        sides["peer"] = partial(run_command, shlex.split(options.peer))
    compare("sft", sides, options.runs)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    return measure_raw(options) if options.side == "raw" else measure_sft(options)


def measure_raw(options: argparse.Namespace) -> dict[str, Any]:
    tokenizer = load_tokenizer(ModelConfig(path=str(options.tokenizer)))
    texts = []
    with options.data.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompt = row["instruction"] + (f"\n\n{row['context']}" if row["context"] else "")
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": row["response"]}]
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False))
    started = time.perf_counter()
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    seconds = time.perf_counter() - started
    num_tokens = sum(len(e.ids) for e in encodings)
    return {"tokens_per_second": num_tokens / seconds, "num_tokens": num_tokens, "seconds": seconds}


def measure_sft(options: argparse.Namespace) -> dict[str, Any]:
    model = ModelConfig(path=str(options.tokenizer))
    source = SourceConfig(name="data", path=str(options.data), task="data")
    with tempfile.TemporaryDirectory() as cache:
        data = DataConfig(
            sources=(source,), max_len_tokens=options.max_len, bad_records="quarantine", cache_dir=Path(cache)
        )
        started = time.perf_counter()
        RecordPipeline(data, model)
        load_seconds = time.perf_counter() - started
        started = time.perf_counter()
        store = prepare_store(data, model)
        seconds = time.perf_counter() - started - load_seconds
        num_tokens = store.tokens.shape[0]
        left_out = {k: v for k, v in store.manifest.items() if k.startswith("num_")}
    return {
        "tokens_per_second": num_tokens / seconds,
        "num_tokens": num_tokens,
        "seconds": seconds,
        "load_seconds": load_seconds,
        **left_out,
    }


if __name__ == "__main__":
    main()
