"""What the product costs on this machine's CPUs, beside its goals and its peers, in one run: `make bench`.

    python -m benchmarks.cpu [--parts training preparation growth failures] [--trl TRL_DIR] [--json bench.json]

    training     tokens a second of `sft.training` with ZeRO-3 on two processes, beside a bare loop and TRL with packing
                 (`benchmarks.training_speed`): a Llama and a Qwen3 with grouped heads, records like Dolly's and GSM8K's
    preparation  tokens a second of `sft prepare`, beside the tokenizer alone and TRL (`benchmarks.preparation_speed`)
    growth       memory and time of `sft prepare` by the number of records (`benchmarks.preparation_size`), with
                 duplicates and overlap looked for, and, in small records, near duplicates
    failures     from the command to the first step, with prepared data; from a worker's end to the next step
                 (`benchmarks.recovery`)

Only TRL_DIR has to be made before, by `pip install --no-deps --target TRL_DIR trl`: data, models and
tokenizer are made here (`benchmarks.made_data`). With --dolly, --gsm8k and --tokenizer, real ones take their place.
Each figure is a median, with the least and the largest, and stands beside its goal. The load of the machine before the
start is in the JSON: only a quiet machine says something about the goals.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from transformers.utils import logging

from benchmarks import preparation_size, preparation_speed, recovery, training_speed
from benchmarks.figures import Figure, about_machine, said_of, table_of, write_json
from benchmarks.in_turn import ratios_of
from benchmarks.made_data import NUM_RECORDS, in_common_columns, write_data
from benchmarks.made_models import SHAPES, SMALL, write_tokenizer, write_weights

LEAST_OF_BARE, LEAST_OF_TRL = 0.95, 2.5
LEAST_OF_RAW, LEAST_OF_TRL_PREPARED = 0.75, 2.5
MOST_BYTES_A_RECORD = 150.0
MOST_EXPONENT = 1.1
"""Of time by records; 1 is linear, and a tenth more is a quarter more time for ten times the records."""
MOST_START_SECONDS, MOST_RECOVERY_SECONDS = 12.0, 8.0
MIB = 1 << 20


class Bench(NamedTuple):
    """What all parts share."""

    options: argparse.Namespace
    folder: Path
    """Holds the data, `dolly.jsonl` and `gsm8k.jsonl`, and a folder `tokenizer`."""
    say: Callable[[str], None]

    def runs(self, usual: int) -> int:
        return 1 if self.options.small else max(1, round(usual * self.options.repeat))


def main() -> int:
    options = read_options()
    logging.disable_progress_bar()
    about = about_machine(options.trl)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(options, Path(folder), say)
        say("data and tokenizer")
        make_data(bench)
        for name in options.parts:
            for found in figures_of(name, bench):
                # Of tiny models and data the goals say nothing.
                figure = replace(found, least=None, most=None) if options.small else found
                figures.append(figure)
                say(figure.row)
                write_json(options.json, figures, about)
    print(f"{table_of(figures)}\n\n{said_of(about)}")
    missed = sum(figure.is_missed for figure in figures)
    say(f"goals missed and parts failed: {missed}; all values: {options.json}")
    return min(missed, 100)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--trl", type=Path, help="the folder that TRL is installed in; else it is not measured")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="all values; written after each figure")
    parser.add_argument("--repeat", type=float, default=1.0, help="how many times the usual number of repetitions")
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000],
                        help="sizes of `growth`: 10000000 takes half an hour more")  # fmt: skip
    for name, text in (("dolly", "Dolly's own records"), ("gsm8k", "GSM8K's own"), ("tokenizer", "a real one")):
        parser.add_argument(f"--{name}", type=Path, help=f"{text}, in place of what is made here")
    parser.add_argument("--folder", type=Path, help="where files are written; else a temporary folder")
    parser.add_argument("--small", action="store_true", help="tiny models and data, once each: to see that all runs")
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, Path):
            setattr(options, name, value.resolve())
    return options


def make_data(bench: Bench) -> None:
    for name in NUM_RECORDS:
        num_records = 300 if bench.options.small else None
        given: Path | None = getattr(bench.options, name)
        path = bench.folder / f"{name}.jsonl"
        if given:
            in_common_columns(given, path, num_records)
        else:
            write_data(path, name, num_records)
    if not bench.options.tokenizer:
        write_tokenizer(bench.folder / "tokenizer", bench.folder / "dolly.jsonl", 400 if bench.options.small else 8192)


def figures_of(name: str, bench: Bench) -> Iterator[Figure]:
    """A part's figures; an error is the last of them, and takes no other part with it."""
    try:
        yield from PARTS[name](bench)
    except (Exception, SystemExit) as error:
        bench.say(f"{name}: {error}")
        lines = str(error).strip().splitlines() or [type(error).__name__]
        yield Figure(name, "not measured", (), error=lines[-1][:200].replace("|", "/"))


def training(bench: Bench) -> Iterator[Figure]:
    small = bench.options.small
    pairs = list(zip(SHAPES, NUM_RECORDS, strict=True))
    for shape, one in pairs[:1] if small else pairs:
        model = model_of(bench, shape)
        for data in (one,) if small else NUM_RECORDS:
            what = f"{shape}, {data}"
            bench.say(f"training: {what}")
            rounds = {"rounds": 1, "pack_len": 512} if small else {"rounds": bench.runs(8)}
            work = training_speed.Work(model, bench.folder / f"{data}.jsonl", bench.options.trl, **rounds)
            found = training_speed.measure(work, bench.say)
            for side, speeds in training_speed.tokens_per_second(found).items():
                yield Figure("training", f"{what}: {side}, tokens/s", speeds)
            for side, least in (("bare", LEAST_OF_BARE), ("trl", LEAST_OF_TRL)):
                if side in found:
                    yield Figure("training", f"{what}: sft / {side}", training_speed.ratios(found, side), least)


def model_of(bench: Bench, shape: str) -> Path:
    """A folder with weights and a tokenizer of its own: the real one's vocabulary would be most of a small model."""
    folder = bench.folder / shape
    small = bench.options.small
    vocabulary = 400 if small else 8192
    write_tokenizer(folder, bench.folder / "dolly.jsonl", vocabulary)
    return write_weights(folder, {**SHAPES[shape], **(SMALL if small else {})}, vocabulary)


def preparation(bench: Bench) -> Iterator[Figure]:
    options = bench.options
    tokenizer = options.tokenizer or bench.folder / "tokenizer"
    speeds = preparation_speed.measure_all(
        tokenizer, bench.folder / "dolly.jsonl", bench.runs(5), options.trl, bench.say
    )
    for side, values in speeds.items():
        yield Figure("preparation", f"dolly: {side}, tokens/s", values)
    for side, least in (("raw", LEAST_OF_RAW), ("trl", LEAST_OF_TRL_PREPARED)):
        if side in speeds:
            yield Figure("preparation", f"dolly: sft / {side}", ratios_of(speeds["sft"], speeds[side]), least)


def growth(bench: Bench) -> Iterator[Figure]:
    sizes = sorted([300, 600] if bench.options.small else bench.options.records)
    for is_small in (False, True):
        what = "small records, near duplicates" if is_small else "lengths as Dolly's"
        before: tuple[int, preparation_size.Found] | None = None
        for size in sizes:
            bench.say(f"growth: {size:,} records, {what}")
            found = preparation_size.measure(
                preparation_size.Kind(
                    tokenizer=bench.options.tokenizer or bench.folder / "tokenizer",
                    data=bench.folder / "dolly.jsonl",
                    near=is_small,
                    small=is_small,
                    drawn=True,
                ),
                size,
                bench.folder,
            )
            yield Figure("growth", f"{what}, {size:,}: peak, MiB", [found["peak"] / MIB])
            yield Figure("growth", f"{what}, {size:,}: s of CPU", [found["cpu"]])
            if before is not None:
                grown = (found["peak"] - before[1]["peak"]) / (size - before[0])
                yield Figure("growth", f"{what}, to {size:,}: bytes a record", [grown], most=MOST_BYTES_A_RECORD)
                exponent = preparation_size.exponent(before[0], before[1]["cpu"], size, found["cpu"])
                yield Figure("growth", f"{what}, to {size:,}: exponent of CPU time", [exponent], most=MOST_EXPONENT)
            before = size, found


def failures(bench: Bench) -> Iterator[Figure]:
    model, found = model_of(bench, "Llama"), []
    for run in range(bench.runs(3)):
        found.append(recovery.measure(recovery.Job(model, bench.folder / "dolly.jsonl")))
        bench.say(f"failures, run {run + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in found[-1].items()))
    goals = {"cold start, s": MOST_START_SECONDS, "recovery, s": MOST_RECOVERY_SECONDS}
    names = {"cold start, s": "command to first step, data prepared, s"}
    for name in found[0]:
        yield Figure("failures", names.get(name, name), [one[name] for one in found], most=goals.get(name))


PARTS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "training": training,
    "preparation": preparation,
    "growth": growth,
    "failures": failures,
}

if __name__ == "__main__":
    sys.exit(main())
