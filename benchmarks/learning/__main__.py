"""Trains all arms of the learning experiments with `sft`, and writes down what came out: JSON, tables and pictures.

    python -m benchmarks.learning [clusters balance stages words packing] [--minutes 60]
    python -m benchmarks.learning real --real-model FOLDER --real-data FOLDER      public data: benchmarks.learning.real
    python -m benchmarks.learning --from-json docs/learning.json       tables and pictures only

Makes the base model, data and configs in --folder, and trains and asks each arm there. The same command goes on with
what is there: nothing that is finished is done again. No training begins after --minutes; what came out is then that of
the trainings that are finished, and says how many are missing.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.figures import about_machine, said_of
from benchmarks.learning.answers import answers_of_models
from benchmarks.learning.arms import Arm, arms, config_of, write_arms
from benchmarks.learning.base import pretrain
from benchmarks.learning.data import write_data
from benchmarks.learning.experiments import EXPERIMENTS, members
from benchmarks.learning.findings import contrasts_of, means_of, rounded, trained_models
from benchmarks.learning.plots import draw
from benchmarks.learning.real import NUM_TOKENS, REAL, real_arms, real_members
from benchmarks.learning.scale import FULL, SMALL, Scale
from benchmarks.learning.tables import in_page, tables_of
from benchmarks.learning.trainings import forked, is_finished, train_arms
from sft.config_yaml import write_yaml
from sft.training.process import quiet_third_parties

_ROOT = Path(__file__).parents[2]
ZOO = [name for name in EXPERIMENTS if name != REAL]
"""The experiments for which everything is made here."""
_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    if options.from_json:
        found = json.loads(options.from_json.read_text(encoding="utf-8"))
    else:
        quiet_third_parties()
        torch.set_num_threads(1)
        found = with_others(options.json, measured(options))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, table in tables_of(found).items():
        print(f"\n{name}\n\n{table}")
    for path in draw(found, options.json.parent):
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB", file=sys.stderr)
    if options.page.is_file():
        options.page.write_text(in_page(options.page.read_text(encoding="utf-8"), found), encoding="utf-8")
    for name, own in found.items():
        print(f"\n{name}: {said_of(own['about'])}")
        if own["num_missing"]:
            print(f"{name}: {own['num_missing']} trainings are missing; the same command goes on with them")
    return 0


def with_others(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, beside the other experiments of the file."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    every = {**before, **found}
    return {name: every[name] for name in EXPERIMENTS if name in every}


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; default: the first {len(ZOO)}")
    parser.add_argument("--folder", type=Path, default=Path("runs/learning"), help="where everything is made")
    parser.add_argument("--base", type=Path, help="a base model that is there, from benchmarks.learning.base")
    parser.add_argument("--real-model", type=Path, help="the model of `real`: quickstart/model, for example")
    parser.add_argument("--real-data", type=Path, help="the folder of its data")
    parser.add_argument("--json", type=Path, help="what came out; pictures lie beside it; default: docs/learning.json")
    parser.add_argument("--page", type=Path, help="a page whose tables are made anew; default: docs/LEARNING.md")
    parser.add_argument("--from-json", type=Path, help="draw and print what was found before")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no training begins later than this")
    parser.add_argument("--at-once", type=int, default=2, help="so many trainings at the same time, a core each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these repetitions")
    parser.add_argument("--arms", nargs="+", help="only arms of these names")
    parser.add_argument("--small", action="store_true", help="a few tokens and questions, to see that all runs")
    options = parser.parse_args(arguments)
    if unknown := set(options.experiments) - set(EXPERIMENTS):
        parser.error(f"no such experiments: {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    options.experiments = options.experiments or ZOO
    if REAL in options.experiments and not (options.real_model and options.real_data):
        parser.error(f"{REAL} needs --real-model and --real-data")
    # What a small run finds is not for the docs.
    place = options.folder if options.small else _ROOT / "docs"
    options.json = options.json or options.from_json or place / "learning.json"
    options.page = options.page or place / "LEARNING.md"
    return options


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet; what came out, for a JSON file."""
    began, scale = time.monotonic(), SMALL if options.small else FULL
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    about, seconds = about_machine(), read_seconds(folder)
    given = []
    if {*options.experiments} & {*ZOO}:
        base = options.base.absolute() if options.base else folder / "base"
        _make_zoo(folder, base, scale, options, seconds)
        given += arms(folder, base, scale, options.device)
    if REAL in options.experiments:
        given += real_arms(folder, options.real_model.absolute(), options.real_data.absolute(), options.device)
    given = [arm for arm in given if is_wanted(arm, options)]
    check_settings(folder, given)
    for ended in train_arms(given, folder, options.at_once, began + options.minutes * _SECONDS):
        if ended.code:
            log = config_of(folder, ended.arm).with_suffix(".log")
            raise SystemExit(f"{log}:\n{log.read_text(encoding='utf-8')[-2000:]}")
        seconds[ended.arm.file] = [round(ended.seconds, 1), round(ended.cpu_seconds, 1)]
        write_seconds(folder, seconds)
        num_left = sum(not is_finished(arm) for arm in given)
        print(f"[{time.monotonic() - began:5.0f} s] {ended.arm.file}: {ended.seconds:.0f} s, {num_left} to go",
              file=sys.stderr, flush=True)  # fmt: skip
    found = {
        name: {"about": {**about, **_amounts(name, scale), **_costs(name, seconds)}, **_found(name, given, scale)}
        for name in options.experiments
    }
    return {name: own for name, own in found.items() if own["num_trainings"]}


def _make_zoo(
    folder: Path, base: Path, scale: Scale, options: argparse.Namespace, seconds: dict[str, list[float]]
) -> None:
    """The base model and the data, where they are not there yet."""
    if not base.is_dir():
        seconds["base"] = in_fork(partial(_pretrain, base, scale, options.device), folder / "base.log", options.at_once)
        write_seconds(folder, seconds)
        print(f"the base model: {seconds['base'][0]:.0f} s", file=sys.stderr, flush=True)
    if not (folder / "data").is_dir():
        in_fork(partial(_write_data, folder, base, scale), folder / "data.log")


def _amounts(name: str, scale: Scale) -> dict[str, int]:
    if name == REAL:
        return {"num_tokens": NUM_TOKENS}
    return {"num_tokens": scale.num_tokens, "base_tokens": scale.base_tokens}


def _costs(name: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Wall and CPU time of the base model and of an experiment's own trainings, in all calls so far."""
    trainings = [own for run, own in seconds.items() if run.partition("/")[0] == name]
    wall, cpu = (
        [round(median(column), 1), round(sum(column))] for column in zip(*(trainings or [[0, 0]]), strict=True)
    )
    return {
        "base_seconds": seconds.get("base"),
        "trainings": {"num": len(trainings), "seconds": wall, "cpu_seconds": cpu},
    }


def is_wanted(arm: Arm, options: argparse.Namespace) -> bool:
    is_seed = options.seeds is None or arm.seed in options.seeds
    return arm.experiment in options.experiments and is_seed and (options.arms is None or arm.name in options.arms)


def _found(name: str, given: Sequence[Arm], scale: Scale) -> dict[str, Any]:
    own = [arm for arm in given if arm.experiment == name]
    finished = [arm for arm in own if is_finished(arm)]
    experiment, groups = EXPERIMENTS[name], real_members() if name == REAL else members(scale)
    trained = trained_models(experiment, ((arm, answers_of_models(arm)) for arm in finished))
    return {
        "num_trainings": len(finished),
        "num_missing": len(own) - len(finished),
        "means": [rounded(mean) for mean in means_of(experiment, trained, groups)],
        "contrasts": [rounded(contrast) for contrast in contrasts_of(experiment, trained, groups)],
    }


def check_settings(folder: Path, given: Sequence[Arm]) -> None:
    """Write the configs; refuse a folder whose runs have others."""
    for arm in given:
        path = config_of(folder, arm)
        if path.is_file() and path.read_text(encoding="utf-8") != write_yaml(arm.config):
            raise SystemExit(f"{path} is of other settings than these: name another --folder, or remove {folder}")
    write_arms(folder, given)


def in_fork(work: Callable[[], int], log: Path, num_threads: int = 1) -> list[float]:
    """Do the work in a fork, so that this process does not use torch; its wall and CPU seconds."""
    began = time.monotonic()
    _, status, used = os.wait4(forked(work, log, num_threads), 0)
    if status:
        raise SystemExit(f"{log}:\n{log.read_text(encoding='utf-8')[-2000:]}")
    return [round(time.monotonic() - began, 1), round(used.ru_utime + used.ru_stime, 1)]


def _pretrain(base: Path, scale: Scale, device: str) -> int:
    aside = base.with_name(f"{base.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    pretrain(aside, scale.base_tokens, device=device)
    aside.rename(base)
    return 0


def _write_data(folder: Path, base: Path, scale: Scale) -> int:
    aside = folder / "data.partial"
    shutil.rmtree(aside, ignore_errors=True)
    write_data(aside, base, scale)
    aside.rename(folder / "data")
    return 0


def read_seconds(folder: Path) -> dict[str, list[float]]:
    """What took how long, in all calls so far: wall and CPU."""
    path = folder / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_seconds(folder: Path, seconds: Mapping[str, Sequence[float]]) -> None:
    (folder / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
