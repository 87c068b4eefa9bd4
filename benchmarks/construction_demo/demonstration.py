"""The steps of the demonstration, each done once in its folder.

FOLDER/base, teacher      two models
FOLDER/round-1, 2, …      construct.yaml, prepare.yaml, what is made, and what the gate said of it: round.json
FOLDER/unreviewed         what the first round made, of which nobody has read anything
FOLDER/runs               the trainings
"""

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.construction_demo.arms import APPROVED, EXPERIMENT, arms, construction_config, members
from benchmarks.construction_demo.data import FULL, SMALL, Amounts, rare_tasks, write_data
from benchmarks.construction_demo.reviewer import review
from benchmarks.construction_demo.rounds import ACCEPTED, BOUND, Plan, Seen, lesson, read_sample
from benchmarks.construction_demo.teacher import train_teacher
from benchmarks.construction_demo.verifier import what_is_wrong
from benchmarks.figures import about_machine
from benchmarks.learning.__main__ import check_settings, in_fork
from benchmarks.learning.answers import answers_of_models
from benchmarks.learning.arms import Arm, config_of
from benchmarks.learning.base import optimizer_of, pretrain
from benchmarks.learning.findings import contrasts_of, means_of, rounded, trained_models
from benchmarks.learning.trainings import forked, is_finished, train_arms
from launcher.cli import main as sft
from sft.approval.own_files import MANIFEST, RECORDS
from sft.config_yaml import write_yaml

_AT_ONCE = 2
_MOST_ROUNDS = 4
_ROUND, _EACH = "round.json", "review of each"
_COUNTS = ("num_wanted", "num_made", "num_kept", "num_dropped", "num_not_made", "dropped", "not_made", "num_requests")
Tokens = tuple[int, int, int]
"""How many the base model, the teacher and each arm are trained on."""
_FULL_TOKENS: Tokens = (2_500_000, 2_000_000, 250_000)
_SMALL_TOKENS: Tokens = (10_000, 60_000, 4_000)


class Round(NamedTuple):
    """One try to make records for which a sample can stand."""

    folder: Path
    plan: Plan
    sample: Mapping[str, Any] = {}
    """What was read of it, once it was."""
    is_open: bool = False
    """Whether `sft prepare` takes its records by their sample."""
    said: str = ""
    """By `sft prepare`, where it refuses them."""

    @property
    def made(self) -> Path:
        """What `sft construct` makes."""
        return self.folder / "made"


class Demonstration:
    """The steps, each done once in its folder."""

    def __init__(self, folder: Path, small: bool) -> None:
        self.folder = folder
        self.amounts: Amounts = SMALL if small else FULL
        self.tokens = _SMALL_TOKENS if small else _FULL_TOKENS
        self.num_threads = 1 if small else _AT_ONCE  # of a command; beside other work, two wait for each other
        self.base, self.teacher = folder / "base", folder / "teacher"
        folder.mkdir(parents=True, exist_ok=True)

    def teach(self) -> None:
        """Make the data, the base model and the teacher."""
        self._once("teacher", self._teach)

    def construct(self) -> None:
        """Make rounds of records, until a sample stands for those of one; if none does, each of the last is read."""
        while (now := self._next_round()) is not None:
            name = now.folder.name
            self._once(f"{name}: construct", partial(self._construct, now))
            self._once(f"{name}: review", partial(self._review, now))
        last = self._rounds()[-1]
        if not last.is_open:
            self._once(_EACH, lambda: review(last.made, *self._browser(last)))

    def train(self) -> None:
        """Train without what was made, with what is approved, and with what nobody has looked at."""
        self._once("train", self._train)

    def found(self) -> dict[str, Any]:
        """What came out, for a JSON file."""
        trained = trained_models(EXPERIMENT, ((arm, answers_of_models(arm)) for arm in self._arms()))
        rounds = self._rounds()
        is_in = members(rounds[-1].plan.tasks)
        return {
            "about": {
                **about_machine(),
                "seconds": self._seconds(),
                "tokens": self.tokens,
                "amounts": self.amounts._asdict(),
                "rare": rare_tasks(),
            },
            "rounds": [_facts(one) for one in rounds],
            "approved": [self._approved(one) for one in self._with_approved()],
            "means": [rounded(mean) for mean in means_of(EXPERIMENT, trained, is_in)],
            "contrasts": [rounded(one) for one in contrasts_of(EXPERIMENT, trained, is_in)],
        }

    def _once(self, name: str, work: Callable[[], object]) -> None:
        """Do what is not done, and write down how long it took."""
        seconds = self._seconds()
        if name not in seconds:
            began = time.monotonic()
            work()
            seconds[name] = round(time.monotonic() - began, 1)
            (self.folder / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")
        _say(f"{name}: {seconds[name]:.0f} s")

    def _seconds(self) -> dict[str, float]:
        path = self.folder / "seconds.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _rounds(self) -> list[Round]:
        """Those that are done."""
        folders = [self.folder / f"round-{number}" for number in range(1, _MOST_ROUNDS + 1)]
        return [_round(folder) for folder in folders if (folder / _ROUND).is_file()]

    def _next_round(self) -> Round | None:
        """None if a sample stands for the last one, or nothing more is to be learned from it."""
        done, plan = self._rounds(), None
        if not done:
            plan = Plan(tuple(rare_tasks()))
        elif not done[-1].is_open and len(done) < _MOST_ROUNDS and _EACH not in self._seconds():
            plan = lesson(done[-1].plan, read_sample(done[-1].made)[1])
        return plan and Round(self.folder / f"round-{len(done) + 1}", plan)

    def _teach(self) -> None:
        whole(self.folder / "data", partial(write_data, amounts=self.amounts))
        for place, make in ((self.base, self._pretrain), (self.teacher, self._tune)):
            if not place.is_dir():
                in_fork(partial(whole, place, make), self.folder / f"{place.name}.log", self.num_threads)

    def _pretrain(self, folder: Path) -> None:
        # Muon multiplies in bfloat16, which takes most of the time on a CPU that has no instructions for it.
        pretrain(folder, self.tokens[0], batch_tokens=3072, make_optimizers=lambda model: [optimizer_of(model)])

    def _tune(self, folder: Path) -> None:
        train_teacher(self.base, self.folder / "data" / "teacher.jsonl", folder, self.tokens[1])

    def _construct(self, now: Round) -> None:
        """Make the records, and see that nothing is trained of what nobody has approved."""
        number = int(now.folder.name.removeprefix("round-"))
        now.folder.mkdir(exist_ok=True)
        config = construction_config(self.folder, self.teacher, now.plan, now.made, self.amounts.made, number)
        self._sft("construct", _written(now.folder / "construct.yaml", config))
        if number == 1:
            ignored = shutil.ignore_patterns("log")
            whole(self.folder / "unreviewed", lambda place: shutil.copytree(now.made, place, ignore=ignored))
        code, said = self._prepare(now)
        if code == 0 or "sft review" not in said:
            raise SystemExit(f"Records that nobody has approved were not refused: {said}")

    def _review(self, now: Round) -> None:
        """Read a sample, and see what the gate says of the whole."""
        review(now.made, *self._browser(now), BOUND, self.amounts.read)
        result, seen = read_sample(now.made)
        code, said = self._prepare(now)
        if (result.suffices and ACCEPTED in {one.reason for one in seen}) != (code == 0):
            raise SystemExit(f"The page says: {result} The gate says: {said}")
        said = said.replace(str(self.folder), "FOLDER").strip() if code else ""
        _say(said or "The gate is open.")
        reasons, by_task = Counter(one.reason for one in seen), _by_task(seen)
        sample = {**asdict(result), "upper": round(result.upper, 4), "reasons": reasons, "by_task": by_task}
        facts = {**now._asdict(), "folder": now.folder.name, "sample": sample, "is_open": code == 0, "said": said}
        (now.folder / _ROUND).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _browser(self, now: Round) -> tuple[Path, Path, Callable[[str], None]]:
        return now.folder / "browser", now.folder / "review.png", _say

    def _prepare(self, now: Round) -> tuple[int, str]:
        """What `sft prepare` says of a config that trains the round by its sample."""
        given = arms(self.folder, self.base, [_source(now, by_sample=True)], [], self.amounts, self.tokens[2])
        config = next(arm.config for arm in given if arm.name == APPROVED)
        return self._sft("prepare", _written(now.folder / "prepare.yaml", config), may_fail=True)

    def _with_approved(self) -> list[Round]:
        """The rounds of which something is approved: what was read and accepted, or all by a sample."""
        return [one for one in self._rounds() if any(record.reason == ACCEPTED for record in read_sample(one.made)[1])]

    def _arms(self) -> list[Arm]:
        """Without that of approved records, if there are none: it is refused."""
        approved = [_source(one, by_sample=one.is_open) for one in self._with_approved()]
        unreviewed = {"name": "made", "path": str(self.folder / "unreviewed"), "constructed": True}
        given = arms(self.folder, self.base, approved, [unreviewed], self.amounts, self.tokens[2])
        return [arm for arm in given if approved or arm.name != APPROVED]

    def _train(self) -> None:
        given = self._arms()
        check_settings(self.folder, given)
        for ended in train_arms(given, self.folder, _AT_ONCE, float("inf")):
            if ended.code:
                log = config_of(self.folder, ended.arm).with_suffix(".log")
                raise SystemExit(f"{log}:\n{log.read_text(encoding='utf-8')[-2000:]}")
            _say(f"{ended.arm.file}: {ended.seconds:.0f} s, {sum(not is_finished(arm) for arm in given)} to go")

    def _approved(self, one: Round) -> dict[str, Any]:
        """What the rule lets through of a round, and how much of it is wrong in truth."""
        path = one.folder / "approved.jsonl"
        rule = ["--sample", str(BOUND)] if one.is_open else []
        self._sft("review", str(one.made), "--approved", str(path), *rule)
        return {"round": one.folder.name, "rule": "sample" if rule else "each", **_truth(path)}

    def _sft(self, *arguments: str, may_fail: bool = False) -> tuple[int, str]:
        """Run a command as a user does, in a fork, which need not import everything; its code, and what it said."""
        log = self.folder / "commands.log"
        before = log.stat().st_size if log.is_file() else 0
        pid = forked(partial(_command, arguments), log, self.num_threads)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = log.read_bytes()[before:].decode()
        if code and not may_fail:
            raise SystemExit(f"sft {' '.join(arguments)}:\n{said[-2000:]}")
        return code, said


def _source(one: Round, *, by_sample: bool) -> dict[str, Any]:
    rule = {"approve": {"sample": BOUND}} if by_sample else {}
    return {"name": one.folder.name, "path": str(one.made), "constructed": True, **rule}


def _command(arguments: Sequence[str]) -> int:
    # Whoever runs this may have put others in the place of these, such as pytest.
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) for descriptor in (1, 2))
    code = sft(arguments)
    sys.stderr.flush()
    return code


def _round(folder: Path) -> Round:
    facts = json.loads((folder / _ROUND).read_text(encoding="utf-8"))
    tasks, max_loss = facts["plan"]
    return Round(folder, Plan(tuple(tasks), max_loss), facts["sample"], facts["is_open"], facts["said"])


def _facts(one: Round) -> dict[str, Any]:
    """What a round made, what was read of it, what the gate said, and what is true."""
    manifest = json.loads((one.made / MANIFEST).read_text(encoding="utf-8"))
    return {
        **one.plan._asdict(),
        "made": {name: value for name, value in manifest.items() if name in _COUNTS},
        "sample": one.sample,
        "is_open": one.is_open,
        "said": one.said,
        "truth": _truth(one.made / RECORDS),
    }


def _by_task(seen: Sequence[Seen]) -> dict[str, dict[str, int]]:
    num = Counter(one.task for one in seen)
    wrong = Counter(one.task for one in seen if one.reason != ACCEPTED)
    return {task: {"read": num[task], "wrong": wrong[task]} for task in sorted(num)}


def _truth(path: Path) -> dict[str, Any]:
    """How many records of a file are wrong, by the verifier."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tasks, wrong = Counter(str(one["task"]) for one in records), Counter[str]()
    for one in records:
        prompt, answer = (turn["content"] for turn in one["messages"][-2:])
        wrong[one["task"]] += what_is_wrong(one["task"], prompt, answer) is not None
    by_task = {task: {"num": tasks[task], "wrong": wrong[task]} for task in sorted(tasks)}
    return {"num": tasks.total(), "wrong": wrong.total(), "by_task": by_task}


def whole(folder: Path, make: Callable[[Path], object]) -> int:
    """Make a folder that is there only as a whole."""
    if not folder.is_dir():
        aside = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        make(aside)
        aside.rename(folder)
    return 0


def _written(path: Path, config: Mapping[str, Any]) -> str:
    path.write_text(write_yaml(config), encoding="utf-8")
    return str(path)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
