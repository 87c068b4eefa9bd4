"""The ledger of a stage: what the ranks really fed to the model, one JSON line for each step, written by the first
rank.

    {"resumed_at": 8, "attempt": 2}    an attempt trains the stage from step 8 on: what stood there is rolled back
    {"step": 8, "attempt": 2, "world_size": 2, "packs": [16, 17], "digest": 1234, "update": true}

`packs` are in the order of the plan. `digest` is the sum of their digests modulo 2**63, so it does not depend on which
rank fed which pack. A line is never changed: rolled back lines stay for people to see, and readers replay all lines in
order.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sft.atomic_files import sync_file, sync_folder
from sft.json_lines import append_line, whole_lines
from sft.schema import Pack

Fed = Sequence[tuple[int, int]]
"""(pack id, `pack_digest`) of each pack that a rank has fed, in that order."""

_DIGEST_RANGE = 2**63


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What was fed in one step, over all ranks."""

    step: int
    attempt: int
    world_size: int
    packs: Sequence[int]
    """In the order of the plan; a range if the ids are consecutive, as they nearly always are: this saves memory,
    because readers hold all steps of a long run at once."""
    digest: int
    """The sum of the packs' digests modulo 2**63."""
    update: bool
    """False if the step was skipped, because its loss or gradient was not finite."""

    def __post_init__(self) -> None:
        """Make equal packs equal values."""
        packs = self.packs
        run = range(packs[0], packs[0] + len(packs)) if packs else range(0)
        if list(packs) == list(run):
            object.__setattr__(self, "packs", run)
        elif set(map(type, packs)) == {int}:
            object.__setattr__(self, "packs", tuple(packs))
        else:
            raise TypeError(f"ids of packs are whole numbers, not {packs}")


class Resume(NamedTuple):
    """From which step on an attempt trained the stage."""

    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a ledger says when its lines are replayed in order."""

    effective: dict[int, LedgerEntry]
    """Step → its entry that no later resumption has rolled back; the last one if there are several."""
    rolled_back: tuple[LedgerEntry, ...]
    repeated: tuple[LedgerEntry, ...]
    """Earlier entries of a step that was not rolled back but has a later entry: it was trained more than once."""
    resumes: tuple[Resume, ...]
    """Where an attempt began to train the stage, the first one included."""
    problems: tuple[str, ...]
    """Lines that are wrong, each in words with its number."""


def pack_digest(pack: Pack) -> int:
    """A hash of the pack's id, examples, tokens, loss mask and boundaries, independent of dtypes: 0 to 2**63 - 1."""
    digest = hashlib.blake2b(digest_size=8)
    for numbers in ([pack.pack_id], pack.example_ids, pack.cu_seqlens, pack.input_ids):
        _add(digest, np.asarray(numbers).astype("<i8"))
    _add(digest, np.packbits(pack.loss_mask))
    return int.from_bytes(digest.digest(), "little") % _DIGEST_RANGE


def digest_of_packs(packs: Iterable[Pack]) -> int:
    """The digest of a step that feeds these packs, in any order."""
    return sum(map(pack_digest, packs)) % _DIGEST_RANGE


def slots_of(fed: Fed, rank: int, world_size: int, slots_per_rank: int) -> list[int]:
    """A rank's part of a vector whose sum over all ranks is what the step was fed (see `entry_from_slots`).

        2 ranks of 2 slots:   rank 0 fed packs 7, 8: [8 9 0 0 d] + rank 1 fed pack 9: [0 0 10 0 e] = [8 9 10 0 d+e]

    Args:
        fed: at most `slots_per_rank` packs.
        rank: whose they are.
        world_size: number of ranks.
        slots_per_rank: packs that a rank feeds at most in a step.

    Returns:
        `world_size * slots_per_rank` slots that hold a pack id + 1, or 0 if there is none; then the sum of the digests
        modulo 2**63. All fit into int64.
    """
    assert len(fed) <= slots_per_rank, f"rank {rank} fed {len(fed)} packs in {slots_per_rank} slots"
    slots = [0] * (world_size * slots_per_rank)
    first = rank * slots_per_rank
    slots[first : first + len(fed)] = [pack_id + 1 for pack_id, _ in fed]
    return [*slots, sum(digest for _, digest in fed) % _DIGEST_RANGE]


def entry_from_slots(step: int, attempt: int, world_size: int, summed: Sequence[int], is_update: bool) -> LedgerEntry:
    """The entry of a step from the sum of all ranks' `slots_of`, added up in int64."""
    *slots, digest = summed
    # int64 wraps around modulo 2**64, a multiple of 2**63: the remainder is right for negative sums too.
    packs = sorted(slot - 1 for slot in slots if slot)
    return LedgerEntry(step, attempt, world_size, packs, digest % _DIGEST_RANGE, is_update)


def fed_check(fed: Fed, place: int, num_ranks: int) -> int:
    """A number whose sum over ranks that should have fed the same, in the same order, is 0 modulo 2**63 if they have.

    The first of them gives `num_ranks - 1` times a hash of what it fed, each of the others takes its own away.
    """
    digest = hashlib.blake2b(np.asarray(fed, dtype="<i8").tobytes(), digest_size=8)
    own = int.from_bytes(digest.digest(), "little") % _DIGEST_RANGE
    return own * (num_ranks - 1) % _DIGEST_RANGE if place == 0 else -own


def is_same_fed(summed: int) -> bool:
    """Whether the sum of all ranks' `fed_check`, added up in int64, says that they have fed the same."""
    return summed % _DIGEST_RANGE == 0


class LedgerWriter:
    """Appends to the ledger of a stage. `sync` and `append` may be called by different threads."""

    def __init__(self, path: Path, attempt: int) -> None:
        """For one attempt; call `resume` before the first `append`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._attempt = attempt

    def resume(self, step: int) -> None:
        """Record that this attempt trains from `step` on; the first attempt does so with 0."""
        append_line(self._path, {"resumed_at": step, "attempt": self._attempt})
        self.sync()
        sync_folder(self._path.parent)  # the file may be new

    def append(self, entry: LedgerEntry) -> None:
        """Add a step. After this returns, a kill of the process does not lose the line."""
        append_line(self._path, {**asdict(entry), "packs": list(entry.packs)})

    def sync(self) -> None:
        """Sync everything that was appended to disk; call it before a checkpoint of these steps is published."""
        sync_file(self._path)


def read_ledger(path: Path) -> Ledger:
    """Replay the ledger at `path`. A last line without a newline is still being written, and is left out.

    Raises:
        FileNotFoundError: there is none.
    """
    effective: dict[int, LedgerEntry] = {}
    rolled_back: list[LedgerEntry] = []
    repeated: list[LedgerEntry] = []
    problems: list[str] = []
    resumes: list[Resume] = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            content = json.loads(line)
            if "resumed_at" in content:
                resumes.append(Resume(int(content["resumed_at"]), int(content["attempt"])))
                first = resumes[-1].step
                rolled_back += [entry for step, entry in effective.items() if step >= first]
                effective = {step: entry for step, entry in effective.items() if step < first}
                continue
            entry = _read_entry(content)
        except (ValueError, TypeError, KeyError) as error:
            problems.append(f"line {number} is damaged ({type(error).__name__})")
            continue
        if (attempt := resumes[-1].attempt if resumes else None) != entry.attempt:
            problems.append(f"line {number} is of attempt {entry.attempt}, but attempt {attempt} was training")
        if entry.step in effective:
            repeated.append(effective[entry.step])
        effective[entry.step] = entry
    return Ledger(effective, tuple(rolled_back), tuple(repeated), tuple(resumes), tuple(problems))


def _read_entry(content: dict[str, Any]) -> LedgerEntry:
    step, attempt, world_size = (int(content[name]) for name in ("step", "attempt", "world_size"))
    return LedgerEntry(step, attempt, world_size, content["packs"], int(content["digest"]), bool(content["update"]))


def _add(digest: hashlib.blake2b, array: npt.NDArray[Any]) -> None:
    # The length comes first, so that different packs never give the same bytes.
    digest.update(len(array).to_bytes(8, "little") + array.tobytes())
