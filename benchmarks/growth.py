"""How cost grows: with the tokens of a pack, layers, ranks and records. Prints tables and exponents, draws plots.

    python -m benchmarks.growth [tokens layers ranks records] [--rounds 5] [--json growth.json] [--plots docs]

    tokens   a ZeRO-3 step of one rank and one pack of 512 to 8,192 tokens: of many examples, and of a single one, whose
             attention grows with the square
    layers   the same, a pack of 1,024 tokens and 4 to 32 layers
    ranks    the same step of four packs, divided among 1, 2 and 4 ranks over gloo
    records  `sft prepare` of 10⁴ to 10⁶ records (--sizes for others): from a file to the plans; and planning alone

In a round each size has its turn, so that a machine whose speed drifts slows all alike. A figure is the median of the
rounds, with the least and the largest. CPU seconds are those of all ranks; they do not count who else waits for the
cores. The exponent k of `cost ~ size ** k` is the slope of a line through the logarithms of the medians; the last one
is that between the two largest sizes, where what does not grow counts least. The model is a Llama of width 128 with
random weights, its vocabulary 2,048 tokens, in float32; records have a tenth of Dolly's length.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

from benchmarks import planning_size, preparation_size
from benchmarks.figures import about_machine, said_of, shown
from benchmarks.forked_engines import EngineGroup
from benchmarks.gpu.packs import pack_of, packs_of
from benchmarks.growth_plots import draw
from benchmarks.made_data import write_data
from benchmarks.made_models import write_tokenizer, write_weights
from sft.engine import zero3  # noqa: F401  (what every fork would import)
from sft.training.process import quiet_third_parties

MIB = 1 << 20
VOCABULARY = 2048
SHAPE: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 16_384,
    "tie_word_embeddings": True,
}


class Curve(NamedTuple):
    """One cost by size; the values are those of all rounds."""

    sweep: str
    what: str
    unit: str
    values: dict[int, list[float]]

    @property
    def medians(self) -> dict[int, float]:
        return {size: statistics.median(values) for size, values in self.values.items()}

    @property
    def exponent(self) -> float:
        return exponent_of(self.medians)

    @property
    def last_exponent(self) -> float:
        """Between the two largest sizes."""
        return exponent_of(dict(sorted(self.medians.items())[-2:]))


def exponent_of(costs: Mapping[int, float]) -> float:
    """The slope of the line through log(cost) by log(size), by least squares; NaN where there is no cost."""
    if len(costs) < 2 or min(costs.values()) <= 0:
        return float("nan")
    slope, _ = np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)
    return float(slope)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    quiet_third_parties()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    about, started = about_machine(), time.monotonic()
    curves: list[Curve] = []
    if options.from_json:
        about, curves = read_json(options.from_json)
        options.sweeps = []
    for sweep in options.sweeps:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for curve in SWEEPS[sweep](options, Path(folder)):
                curves.append(curve)
                medians = ", ".join(f"{size:,}: {shown(median)}" for size, median in curve.medians.items())
                print(f"[{time.monotonic() - started:5.0f} s] {curve.sweep}, {curve.what}, {curve.unit}: {medians}; "
                      f"exponent {curve.exponent:.2f}", file=sys.stderr, flush=True)  # fmt: skip
        rows = [{**curve._asdict(), "exponent": curve.exponent} for curve in curves]
        options.json.write_text(json.dumps({**about, "curves": rows}, indent=1) + "\n")
    print(f"{table_of(curves)}\n\n{said_of(about)}")
    if options.plots:
        for path in draw(curves, options.plots):
            print(f"{path}: {path.stat().st_size / 1024:.0f} KiB", file=sys.stderr)
    return 0


def read_json(path: Path) -> tuple[dict[str, Any], list[Curve]]:
    """What a run has written: about its machine, and the curves."""
    content = json.loads(path.read_text())
    curves = []
    for row in content.pop("curves"):
        values = {int(size): of_size for size, of_size in row["values"].items()}
        curves.append(Curve(row["sweep"], row["what"], row["unit"], values))
    return content, curves


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="*", help=f"of {', '.join(SWEEPS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="of `records`")
    parser.add_argument("--record-rounds", type=int, default=3, help="of `records`")
    parser.add_argument("--json", type=Path, default=Path("growth.json"), help="all values")
    parser.add_argument("--plots", type=Path, help="a folder for the plots")
    parser.add_argument("--from-json", type=Path, help="draw and print what a run before has measured")
    parser.add_argument("--folder", type=Path, help="where files are written; else a temporary folder")
    parser.add_argument("--small", action="store_true", help="a few tokens and records, to see that all runs")
    options = parser.parse_args(arguments)
    if unknown := set(options.sweeps) - set(SWEEPS):
        parser.error(f"no such sweeps: {', '.join(sorted(unknown))}; there are {', '.join(SWEEPS)}")
    options.sweeps = options.sweeps or list(SWEEPS)
    return options


def in_turn(sweep: str, what: str, sizes: Sequence[int], groups: Mapping[int, EngineGroup], rounds: int) -> list[Curve]:
    """Steps of all groups, round by round: CPU and wall time by size."""
    cpu: dict[int, list[float]] = {size: [] for size in sizes}
    wall: dict[int, list[float]] = {size: [] for size in sizes}
    for group in groups.values():  # DeepSpeed records the order of the modules in its first passes
        group.step()
        group.step()
    for _ in range(rounds):
        for size, group in groups.items():
            cost = group.step()
            cpu[size].append(cost.cpu)
            wall[size].append(cost.wall)
    return [Curve(sweep, what, "s of CPU", cpu), Curve(sweep, what, "s", wall)]


def tokens(options: argparse.Namespace, folder: Path) -> Iterator[Curve]:
    sizes = [16, 32] if options.small else [512, 1024, 2048, 4096, 8192]
    model = write_weights(folder / "model", shape_of(options), VOCABULARY)
    for what in ("many examples", "one example"):
        with ExitStack() as running:
            groups = {}
            for size in sizes:
                pack = packs_of(1, size, VOCABULARY)[0] if what == "many examples" else pack_of([size], VOCABULARY)
                groups[size] = running.enter_context(EngineGroup(model, [pack], 1, folder / f"{what}-{size}"))
            yield from in_turn("tokens a pack", what, sizes, groups, options.rounds)


def layers(options: argparse.Namespace, folder: Path) -> Iterator[Curve]:
    sizes = [1, 2] if options.small else [4, 8, 16, 32]
    packs = packs_of(1, 16 if options.small else 1024, VOCABULARY)
    with ExitStack() as running:
        groups = {}
        for size in sizes:
            shape = {**shape_of(options), "num_hidden_layers": size}
            model = write_weights(folder / f"model-{size}", shape, VOCABULARY)
            groups[size] = running.enter_context(EngineGroup(model, packs, 1, folder / f"layers-{size}"))
        yield from in_turn("layers", "a pack of 1,024 tokens", sizes, groups, options.rounds)


def ranks(options: argparse.Namespace, folder: Path) -> Iterator[Curve]:
    sizes = [1, 2] if options.small else [1, 2, 4]
    packs = packs_of(max(sizes), 16 if options.small else 1024, VOCABULARY)
    model = write_weights(folder / "model", shape_of(options), VOCABULARY)
    with ExitStack() as running:
        groups = {
            size: running.enter_context(EngineGroup(model, packs, size, folder / f"ranks-{size}")) for size in sizes
        }
        yield from in_turn("ranks", "four packs of 1,024 tokens", sizes, groups, options.rounds)


def shape_of(options: argparse.Namespace) -> dict[str, Any]:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1} if options.small else {}
    return {**SHAPE, **small}


def records(options: argparse.Namespace, folder: Path) -> Iterator[Curve]:
    sizes, rounds = ([100, 200], 1) if options.small else (sorted(options.sizes), options.record_rounds)
    data = write_data(folder / "dolly.jsonl", "dolly", 200 if options.small else None)
    tokenizer = write_tokenizer(folder / "tokenizer", data, 400 if options.small else 8192)
    kind = preparation_size.Kind(tokenizer, data, small=True)
    for size in sizes:
        preparation_size.write_records(folder / f"records-{size}.jsonl", data, size, is_small=True)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            found[size].append(preparation_size.prepare_written(kind, folder / f"records-{size}.jsonl"))
    for key, unit, scale in (("cpu", "s of CPU", 1), ("wall", "s", 1), ("peak", "MiB at the peak", MIB)):
        values = {size: [one[key] / scale for one in of_size] for size, of_size in found.items()}
        yield Curve("records", "sft prepare", unit, values)
    planned: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            planned[size].append(planning_size.plan_seconds(size))
    yield Curve("records", "mixture, order and packs", "s", planned)


SWEEPS = {"tokens": tokens, "layers": layers, "ranks": ranks, "records": records}


def table_of(curves: Sequence[Curve]) -> str:
    """Tables by sweep, ready to be pasted into a page: median (least to largest) by size, and exponents."""
    lines: list[str] = []
    for sweep in dict.fromkeys(curve.sweep for curve in curves):
        own = [curve for curve in curves if curve.sweep == sweep]
        sizes = sorted(own[0].values)
        lines += ["", f"| {sweep} | | {' | '.join(f'{size:,}' for size in sizes)} | exponent | the last |"]
        lines.append("|---|---|" + "---:|" * (len(sizes) + 2))
        for curve in own:
            cells = [
                f"{shown(curve.medians[size])} ({shown(min(curve.values[size]))} to {shown(max(curve.values[size]))})"
                for size in sizes
            ]
            exponents = [f"{exponent:.2f}" for exponent in (curve.exponent, curve.last_exponent)]
            lines.append(f"| {curve.what} | {curve.unit} | {' | '.join([*cells, *exponents])} |")
    return "\n".join(lines[1:])


if __name__ == "__main__":
    sys.exit(main())
