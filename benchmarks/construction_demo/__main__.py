"""The circle, shown: more of what is rare by a local model, approved by a reviewer in a browser, trained and asked.

    python -m benchmarks.construction_demo                   all, into docs/construction.json and docs/CONSTRUCTION.md
    python -m benchmarks.construction_demo --until review    teacher, construct, review or train: no further

Needs Chromium and its driver. The same command goes on with what is there in --folder. All but the teacher is done by
the commands that a user gives: `sft construct`, `sft review`, `sft train`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.construction_demo.arms import APPROVED, EXPERIMENT, MEMBERS, arms, construction_config
from benchmarks.construction_demo.data import FULL, SMALL, Amounts, rare_tasks, write_data
from benchmarks.construction_demo.reviewer import ACCEPTED, review
from benchmarks.construction_demo.teacher import train_teacher
from benchmarks.figures import about_machine
from benchmarks.learning.__main__ import check_settings, in_fork
from benchmarks.learning.answers import answers_of_models
from benchmarks.learning.arms import Arm, config_of
from benchmarks.learning.base import optimizer_of, pretrain
from benchmarks.learning.findings import contrasts_of, means_of, rounded, trained_models
from benchmarks.learning.tables import differences_table, in_comments, means_table
from benchmarks.learning.trainings import is_finished, train_arms
from sft.approval.own_files import MANIFEST
from sft.config_yaml import write_yaml
from sft.training.process import quiet_third_parties
from tests.review.browser import CHROMIUM, DRIVER

_ROOT = Path(__file__).parents[2]
STEPS = ("teacher", "construct", "review", "train", "all")
_AT_ONCE = 2
_REVIEWED = "reviewed.json"
Tokens = tuple[int, int, int]
"""How many the base model, the teacher and each arm are trained on."""
_FULL_TOKENS: Tokens = (2_500_000, 2_000_000, 250_000)
_SMALL_TOKENS: Tokens = (60_000, 60_000, 4_000)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    if DRIVER is None or CHROMIUM is None:
        print("The reviewer needs Chromium and its driver: apt-get install chromium chromium-driver", file=sys.stderr)
        return 2
    quiet_third_parties()
    demonstration = Demonstration(options.folder.absolute(), options.small)
    last = STEPS.index(options.until)
    for step in STEPS[: min(last + 1, 4)]:
        demonstration.do(step)
    if options.until != "all":
        return 0
    found = demonstration.found()
    place = options.folder if options.small else _ROOT / "docs"
    (place / "construction.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    tables = tables_of(found)
    for table in tables.values():
        print(f"\n{table}")
    page = place / "CONSTRUCTION.md"
    if page.is_file():
        page.write_text(in_comments(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/construction-demo"), help="where everything is made")
    parser.add_argument("--until", choices=STEPS, default="all", help="the last step that is done")
    parser.add_argument("--small", action="store_true", help="a few records and tokens, to see that all runs")
    return parser.parse_args(arguments)


class Demonstration:
    """The steps, each done once in its folder."""

    def __init__(self, folder: Path, small: bool) -> None:
        self.folder = folder
        self.amounts: Amounts = SMALL if small else FULL
        self.tokens = _SMALL_TOKENS if small else _FULL_TOKENS
        self.base, self.teacher = folder / "base", folder / "teacher"
        self.made, self.unseen = folder / "made", folder / "made_unreviewed"
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def arms(self) -> list[Arm]:
        """Without that of approved records, if there are none: it is refused."""
        path = self.folder / _REVIEWED
        is_empty = path.is_file() and ACCEPTED not in _read(self.folder, _REVIEWED)
        given = arms(self.folder, self.base, (self.made, self.unseen), self.amounts, self.tokens[2])
        return [arm for arm in given if not (is_empty and arm.name == APPROVED)]

    def do(self, step: str) -> None:
        """Do what is not done of a step, and write down how long it took."""
        path = self.folder / "seconds.json"
        seconds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if step not in seconds:
            began = time.monotonic()
            {"teacher": self._teach, "construct": self._construct, "review": self._review, "train": self._train}[step]()
            seconds[step] = round(time.monotonic() - began, 1)
            path.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")
        _say(f"{step}: {seconds[step]:.0f} s")

    def _teach(self) -> None:
        whole(self.folder / "data", partial(write_data, amounts=self.amounts))
        for place, make in ((self.base, self._pretrain), (self.teacher, self._tune)):
            if not place.is_dir():
                in_fork(partial(whole, place, make), self.folder / f"{place.name}.log", _AT_ONCE)

    def _pretrain(self, folder: Path) -> None:
        # Muon multiplies in bfloat16, which takes most of the time on a CPU that has no instructions for it.
        pretrain(folder, self.tokens[0], batch_tokens=3072, make_optimizers=lambda model: [optimizer_of(model)])

    def _tune(self, folder: Path) -> None:
        train_teacher(self.base, self.folder / "data" / "teacher.jsonl", folder, self.tokens[1])

    def _construct(self) -> None:
        config = construction_config(self.folder, self.base, self.teacher, self.made, self.amounts.made)
        path = self.folder / "construct.yaml"
        path.write_text(write_yaml(config), encoding="utf-8")
        subprocess.run([*_SFT, "construct", str(path)], check=True)

    def _review(self) -> None:
        """First, that nothing is trained of what nobody has approved. A copy stays without decisions."""
        whole(self.unseen, lambda place: shutil.copytree(self.made, place, ignore=shutil.ignore_patterns("log")))
        check_settings(self.folder, self.arms)
        first = config_of(self.folder, next(arm for arm in self.arms if arm.name == APPROVED))
        refused = subprocess.run([*_SFT, "prepare", str(first)], check=False, capture_output=True, text=True)
        if refused.returncode == 0 or "sft review" not in refused.stderr:
            raise SystemExit(f"Records that nobody has approved were not refused: {refused.stderr}")
        _say(refused.stderr.strip())
        reviewed = review(self.made, self.folder / "browser", self.folder / "review.png", _say)
        (self.folder / _REVIEWED).write_text(json.dumps(reviewed) + "\n", encoding="utf-8")

    def _train(self) -> None:
        given = self.arms
        check_settings(self.folder, given)
        for ended in train_arms(given, self.folder, _AT_ONCE, float("inf")):
            if ended.code:
                log = config_of(self.folder, ended.arm).with_suffix(".log")
                raise SystemExit(f"{log}:\n{log.read_text(encoding='utf-8')[-2000:]}")
            _say(f"{ended.arm.file}: {ended.seconds:.0f} s, {sum(not is_finished(arm) for arm in given)} to go")

    def found(self) -> dict[str, Any]:
        """What came out, for a JSON file."""
        trained = trained_models(EXPERIMENT, ((arm, answers_of_models(arm)) for arm in self.arms))
        manifest = json.loads((self.made / MANIFEST).read_text(encoding="utf-8"))
        read = partial(_read, self.folder)
        return {
            "about": {
                **about_machine(),
                "seconds": read("seconds.json"),
                "tokens": self.tokens,
                "amounts": self.amounts._asdict(),
                "rare": rare_tasks(),
            },
            "made": {name: value for name, value in manifest.items() if name in _COUNTS},
            "reviewed": read(_REVIEWED),
            "means": [rounded(mean) for mean in means_of(EXPERIMENT, trained, MEMBERS)],
            "contrasts": [rounded(one) for one in contrasts_of(EXPERIMENT, trained, MEMBERS)],
        }


_COUNTS = ("num_wanted", "num_made", "num_kept", "num_dropped", "num_not_made", "dropped", "not_made", "num_requests")
_SFT = (sys.executable, "-m", "launcher")


def tables_of(found: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/CONSTRUCTION.md."""
    means, contrasts = ([one for one in found[name] if one["way"] == "all"] for name in ("means", "contrasts"))
    return {
        "construction": means_table(means, EXPERIMENT.groups),
        "construction-differences": differences_table(contrasts, EXPERIMENT.groups),
    }


def whole(folder: Path, make: Callable[[Path], object]) -> int:
    """Make a folder that is there only as a whole."""
    if not folder.is_dir():
        aside = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        make(aside)
        aside.rename(folder)
    return 0


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
