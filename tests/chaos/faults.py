"""Faults, where they strike, and random schedules of them.

A rank passes the same places in the same order in every attempt. A fault strikes when a rank passes a place for the
n-th time in an attempt; it is put there by wrapping the functions of the real program, which knows nothing of it.
"""

import errno
import os
import random
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

PLACES = {
    # place: how often a rank passes it in an undisturbed run, or less
    "load": 2,  # the beginning of a stage, so also its boundary
    "load checkpoint": 2,
    "evaluate": 4,
    "train": 16,  # before the forward pass
    "backward": 45,  # after the forward pass, before the backward pass
    "update": 16,  # after the backward pass and the update
    "ledger": 16,  # before what was fed is written down
    "save": 6,
    "write": 6,  # in the middle of writing a rank's part
    "publish": 6,  # all parts are written, nothing is published
    "published": 6,  # published, nothing old is deleted
    "delete": 2,  # before an old checkpoint is deleted
    "export": 20,  # between two parameters of the model's file
    "complete": 2,  # the model is published, the stage is not finished
}
BY_FIRST_RANK = ("ledger", "export", "publish", "published", "delete", "complete")
DAMAGE = ("flip a bit", "truncate", "lose a file", "lose the manifest")


@dataclass(frozen=True)
class Fault:
    """In an attempt (from 1), a rank (-1: all) meets it when it passes the place for the n-th time (from 1)."""

    attempt: int
    rank: int
    place: str
    nth: int
    how: str
    """kill, stop (SIGSTOP: it hangs), raise, poison (the same error in every attempt), full (the disk)."""

    def __str__(self) -> str:
        who = "all ranks" if self.rank < 0 else f"rank {self.rank}"
        return f"{self.how} {who} at {self.place} {self.nth}"


@dataclass(frozen=True)
class Schedule:
    """What happens to one run: the size of each attempt (the last one's stays), faults, damage after attempts."""

    seed: int
    sizes: tuple[int, ...]
    faults: tuple[Fault, ...]
    damage: dict[int, str] = field(default_factory=dict)
    """Attempt → what is done to the newest checkpoint after it, if there is an older one."""
    parts: tuple[int, ...] = (1,)
    """How many ranks share a micro-batch in each attempt (the last one's stays)."""

    def __str__(self) -> str:
        parts = [str(fault) for fault in self.faults]
        parts += [f"then {damage}" for damage in self.damage.values()]
        return (
            f"{len(parts)} faults on {'→'.join(map(str, self.sizes))} ranks, {self.parts} to a row: {'; '.join(parts)}"
        )

    def num_parts(self, attempt: int) -> int:
        """How many ranks share a micro-batch in an attempt."""
        return self.parts[min(attempt, len(self.parts)) - 1]

    @property
    def has_hang(self) -> bool:
        """Whether a rank is made to hang."""
        return any(fault.how == "stop" for fault in self.faults)

    def of(self, attempt: int, rank: int) -> list[dict[str, Any]]:
        """Those of a rank in an attempt, as JSON."""
        return [asdict(f) for f in self.faults if f.attempt == attempt and f.rank in (rank, -1)]


def random_schedule(seed: int, keeps_size: bool) -> Schedule:
    """One to four faults, always the same for a seed."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    damage: dict[int, str] = {}
    sizes = [2]
    num_faults = rng.randint(1, 4)
    while len(faults) + len(damage) < num_faults:
        attempt = len(faults) + 1
        place = rng.choice(list(PLACES))
        # Less is left to pass in later attempts.
        nth = rng.randint(1, max(1, PLACES[place] // attempt))
        how = rng.choices(["kill", "raise", "stop"], [6, 3, 1])[0]
        if place in ("write", "publish") and rng.random() < 0.4:
            how = "full"
        rank = 0 if place in BY_FIRST_RANK else rng.choice([0, sizes[-1] - 1, -1 if how == "kill" else 0])
        faults.append(Fault(attempt, rank, place, nth, how))
        if len(faults) + len(damage) < num_faults and rng.random() < 0.4:
            damage[attempt] = rng.choice(DAMAGE)
        sizes.append(2 if keeps_size else rng.choice([1, 2, 3]))
    return Schedule(seed, tuple(sizes), tuple(faults), damage)


def shared_schedule(seed: int) -> Schedule:
    """A random schedule in which each attempt has other ranks, and another number of them share a micro-batch.

    There may be ranks that are left over.
    """
    rng, schedule = random.Random(seed), random_schedule(seed, keeps_size=False)
    sizes = tuple(max(2, size) + rng.choice([0, 1]) for size in schedule.sizes)
    return replace(schedule, sizes=sizes, parts=tuple(rng.choice([2, 4 if size == 4 else 2, 1]) for size in sizes))


def install(faults: list[dict[str, Any]], spoiled_steps: list[int]) -> None:
    """Put the faults into this process; to be called after the program is imported and before it runs.

    The loss of `spoiled_steps` is not a number, in every stage and attempt.
    """
    strike = _Strikes([Fault(**fault) for fault in faults])
    # Here, since they import DeepSpeed, which takes seconds: who makes a schedule has no need of it.
    from sft.checkpoint import export, saver  # noqa: PLC0415
    from sft.checkpoint.local_storage import LocalStorage  # noqa: PLC0415
    from sft.checkpoint.remote_storage import RemoteStorage  # noqa: PLC0415
    from sft.engine.plain import PlainEngine  # noqa: PLC0415
    from sft.engine.zero3 import Zero3Engine  # noqa: PLC0415
    from sft.ledger import LedgerWriter  # noqa: PLC0415
    from sft.training import stage_ending  # noqa: PLC0415
    from sft.training.heartbeat import Heartbeat  # noqa: PLC0415

    def before(owner: Any, name: str, place: str) -> None:
        _wrap(owner, name, lambda call: (strike(place), call())[1])

    def after(owner: Any, name: str, place: str) -> None:
        _wrap(owner, name, lambda call: (call(), strike(place))[0])

    enter = Heartbeat.enter
    now: list[int | None] = [None]

    def entered(heartbeat: Heartbeat, place: str, *arguments: Any, **named: Any) -> None:
        enter(heartbeat, place, *arguments, **named)
        now[0] = heartbeat.step if place == "train" else None
        if place in PLACES and place != "export":
            strike(place)

    Heartbeat.enter = entered  # type: ignore[method-assign]  # that is the purpose
    for engine in (Zero3Engine, PlainEngine):
        after(engine, "train_step", "update")
        _wrap_engine(engine, strike, lambda: now[0] in spoiled_steps)
    before(LedgerWriter, "append", "ledger")
    for place in (LocalStorage, RemoteStorage):
        before(place, "publish", "publish")
        after(place, "publish", "published")
        before(place, "delete", "delete")
    before(export.SafetensorsWriter, "write", "export")
    after(stage_ending, "export_model", "complete")

    write = saver.write_rank_file

    def write_half(path: Any, *arguments: Any) -> Any:
        written = write(path, *arguments)
        if strike.is_next("write"):
            os.truncate(path, path.stat().st_size // 2)
        strike("write")
        return written

    saver.write_rank_file = write_half


class _Strikes:
    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._counts: dict[str, int] = {}

    def is_next(self, place: str) -> bool:
        return self._find(place, self._counts.get(place, 0) + 1) is not None

    def __call__(self, place: str) -> None:
        self._counts[place] = nth = self._counts.get(place, 0) + 1
        fault = self._find(place, nth)
        if fault is None:
            return
        os.write(2, f"chaos: {fault}\n".encode())
        if fault.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.how == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        elif fault.how == "poison":
            raise ValueError("chaos: a record that no model can bear")
        else:
            raise RuntimeError(f"chaos in attempt {fault.attempt}: {fault}")

    def _find(self, place: str, nth: int) -> Fault | None:
        # A full disk stays full for all tries of one save.
        spans = {"full": 3}
        return next((f for f in self._faults if f.place == place and f.nth <= nth < f.nth + spans.get(f.how, 1)), None)


def _wrap(owner: Any, name: str, around: Callable[[Callable[[], Any]], Any]) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        return around(lambda: original(*arguments, **named))

    setattr(owner, name, wrapped)


def _wrap_engine(engine_class: Any, strike: _Strikes, is_spoiled: Callable[[], bool]) -> None:
    make = engine_class.__init__

    def made(engine: Any, *arguments: Any, **named: Any) -> None:
        make(engine, *arguments, **named)
        module = engine._module if hasattr(engine, "_module") else engine._engine.module
        # Before the backward pass, which only a loss with a gradient has.
        module.register_forward_hook(lambda m, i, nll: strike("backward") if nll.requires_grad else None)
        module.register_forward_hook(lambda m, i, nll: nll * float("nan") if is_spoiled() else nll)

    engine_class.__init__ = made
