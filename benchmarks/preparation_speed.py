"""Speed of preparing data: from a file of records to the published token store, beside the tokenizer alone and TRL.

    python -m benchmarks.preparation_speed TOKENIZER_DIR DATA.jsonl [--runs 5] [--trl TRL_DIR]

DATA has Dolly's columns (instruction, context, response); TRL_DIR is what `pip install --no-deps --target TRL_DIR trl`
makes. All sides run in turn, each in a process of its own, so that a machine whose speed drifts slows all of them:

    raw    `encode_batch_fast` of the tokenizers library on the rendered texts, all in one call, with all cores: nothing
           that uses it can be faster
    sft    `prepare_store` as `sft prepare` calls it, with reading, hashing, masks, the search for exact duplicates,
           writing and syncing, after the tokenizer is loaded
    trl    what TRL's SFTTrainer does to a data set before it trains (`benchmarks/trl_preparation_peer.py`)
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.in_turn import Side, measure_in_turn, ratios_of, run_command, spread
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.preparation import prepare_store
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.chat_template import load_tokenizer

ROOT = Path(__file__).parents[1]
LONGEST = 16_384
"""In tokens: so that no example is left out as too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--trl", type=Path, help="the folder that TRL is installed in")
    parser.add_argument("--side", choices=("raw", "sft"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure_raw(options) if options.side == "raw" else measure_sft(options)))
        return
    speeds = measure_all(options.tokenizer, options.data, options.runs, options.trl, print)
    for name, values in speeds.items():
        print(f"{name}: {spread(values, ',.0f')} tokens/s")
    for name in speeds:
        if name != "sft":
            print(f"sft / {name}: {spread(ratios_of(speeds['sft'], speeds[name]), '.2f')}")


def measure_all(
    tokenizer: Path, data: Path, runs: int, trl: Path | None, say: Callable[[str], object] = lambda text: None
) -> dict[str, list[float]]:
    """Side → its speeds in tokens a second, run by run."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, trl))))}
    given = [str(tokenizer), str(data)]
    own = [sys.executable, "-m", "benchmarks.preparation_speed", *given]
    sides: dict[str, Side] = {side: partial(run_command, [*own, "--side", side], variables) for side in ("raw", "sft")}
    if trl:
        peer = [sys.executable, str(ROOT / "benchmarks/trl_preparation_peer.py"), *given]
        sides["trl"] = partial(run_command, peer, variables)
    return measure_in_turn(sides, runs, say)


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
        data = DataConfig(sources=(source,), max_len_tokens=LONGEST, bad_records="quarantine", cache_dir=Path(cache))
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
