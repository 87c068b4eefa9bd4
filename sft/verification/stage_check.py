"""Checks the ledger of a stage against its plan: each pack once, in its own step, with the store's tokens."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sft.data.planning.pack_plan import PackPlan
from sft.ledger import Ledger, LedgerEntry
from sft.stage_end import StageEnd
from sft.verification.digests import digest_steps
from sft.verification.findings import Findings, Kind


@dataclass(frozen=True, slots=True)
class StageState:
    """The state of a stage's folder when it was read."""

    name: str
    end: StageEnd | None
    """How it ended; None if it has not."""
    newest_checkpoint: int
    """The steps of the newest published checkpoint; 0 if there is none."""
    ledger: Ledger

    @property
    def is_finished(self) -> bool:
        """Whether the stage has ended."""
        return self.end is not None

    def num_steps(self, num_planned: int) -> int:
        """After how many steps it ends, of so many that are planned."""
        return min(self.end.num_steps, num_planned) if self.end is not None and self.end.is_early else num_planned


@dataclass(frozen=True, slots=True)
class StageVerified:
    """What a stage has trained. Counts are without rolled back steps."""

    name: str
    is_finished: bool
    num_steps_planned: int
    part_steps: tuple[int, ...]
    """The planned steps of each part: the original plan, then each extension."""
    num_steps: int
    num_packs: int
    """Packs that were fed in their own step."""
    num_supervised_tokens: int
    """Tokens of those packs that led to an update, counted in the token store."""
    skipped_steps: tuple[int, ...]
    num_rolled_back: int
    newest_checkpoint: int
    end: StageEnd | None = None
    """How it ended; None if it has not."""


class StageCheck:
    """Compares the ledger of one stage with its plan."""

    def __init__(self, state: StageState, plan: PackPlan, findings: Findings) -> None:
        """`plan` is intact; problems go to `findings`."""
        self._state = state
        self._plan = plan
        self._findings = findings
        self._steps = plan.steps()
        self._in_place = [entry for _, entry in sorted(state.ledger.effective.items()) if self._is_in_place(entry)]

    @property
    def num_packs(self) -> int:
        """How many packs `compare` reads."""
        return sum(len(entry.packs) for entry in self._in_place)

    def check(self) -> None:
        """Look for steps and packs that were left out, trained more than once, or trained in the wrong place."""
        ledger, num_steps = self._state.ledger, self._state.num_steps(self._steps.num_steps)
        for problem in ledger.problems:
            self._add(Kind.LEDGER, f": ledger.jsonl, {problem}")
        for entry in ledger.repeated:
            self._add(Kind.STEPS, f": step {entry.step} was trained again without being rolled back")
        num_done = max(ledger.effective, default=-1) + 1
        for step in range(num_steps if self._state.is_finished else min(num_done, num_steps)):
            if step not in ledger.effective:
                self._add(Kind.STEPS, f": step {step} was never trained")
        for step in sorted(step for step in ledger.effective if not 0 <= step < num_steps):
            where = "plan has" if num_steps == self._steps.num_steps else "stage ended early, after"
            self._add(Kind.STEPS, f": step {step} was trained, but the {where} {num_steps} steps")
        num_known = max((entry.step + 1 for entry in self._entries()), default=0)
        if num_known < self._state.newest_checkpoint:
            text = f": a checkpoint has {self._state.newest_checkpoint} steps, but the ledger ends after {num_known}"
            self._add(Kind.STEPS, text)
        self._check_packs()

    def compare(self, store: Path, report: Callable[[int], None]) -> StageVerified:
        """Compute again, from plan and store, what the ranks should have fed.

        Args:
            store: the intact token store of the plan.
            report: called with the number of packs that were read.
        """
        num_supervised = 0
        packs_of_steps = [self._steps.step_packs(entry.step) for entry in self._in_place]
        found = digest_steps(self._plan.path, store, packs_of_steps)
        for entry, packs, expected in zip(self._in_place, packs_of_steps, found, strict=True):
            if expected.digest != entry.digest:
                first, last = packs[0], packs[-1]
                text = f", step {entry.step}: what was fed as packs {first} to {last} is not what the plan says"
                self._add(Kind.FED, text)
            if entry.update:
                num_supervised += expected.num_supervised_tokens
            report(len(packs))
        return self.counted(num_supervised)

    def counted(self, num_supervised_tokens: int = 0) -> StageVerified:
        """What the ledger has, whether it was compared or not."""
        state, ledger = self._state, self._state.ledger
        return StageVerified(
            name=state.name,
            is_finished=state.is_finished,
            num_steps_planned=self._steps.num_steps,
            part_steps=tuple(self._steps.part_steps),
            num_steps=len(ledger.effective),
            num_packs=self.num_packs,
            num_supervised_tokens=num_supervised_tokens,
            skipped_steps=tuple(sorted(step for step, entry in ledger.effective.items() if not entry.update)),
            num_rolled_back=len(ledger.rolled_back),
            newest_checkpoint=state.newest_checkpoint,
            end=state.end,
        )

    def _is_in_place(self, entry: LedgerEntry) -> bool:
        packs = self._steps.step_packs(entry.step)
        return bool(packs) and (entry.packs == packs or sorted(entry.packs) == list(packs))

    def _check_packs(self) -> None:
        """Check packs one by one, but only in steps that are not as planned: all others are where they belong."""
        ledger, num_packs = self._state.ledger, len(self._plan)
        in_place = {entry.step for entry in self._in_place}
        odd = [entry for step, entry in ledger.effective.items() if step not in in_place] + list(ledger.repeated)
        trained = defaultdict(list)
        for entry in odd:
            for pack_id in entry.packs:
                trained[pack_id].append(entry.step)
        for pack_id, steps in sorted(trained.items()):
            if not 0 <= pack_id < num_packs:
                self._add(Kind.PACKS, f": pack {pack_id} of step {steps[0]} is not one of the plan's {num_packs}")
                continue
            own = self._steps.step_of(pack_id)
            # Its own step has trained it, too.
            steps += [own] if own in in_place else []
            if len(steps) > 1:
                self._add(Kind.PACKS, f": pack {pack_id} was trained {len(steps)} times ({_as_text(sorted(steps))})")
            elif steps != [own]:
                self._add(Kind.PACKS, f": pack {pack_id} was trained in step {steps[0]}, but belongs to step {own}")
        for step in sorted(ledger.effective.keys() - in_place):
            # The packs of a step that was never trained are not named one by one.
            for pack_id in self._steps.step_packs(step):
                if pack_id not in trained:
                    self._add(Kind.PACKS, f": pack {pack_id} was never trained, though step {step} was")

    def _entries(self) -> Iterator[LedgerEntry]:
        yield from self._state.ledger.effective.values()
        yield from self._state.ledger.rolled_back

    def _add(self, kind: Kind, text: str) -> None:
        self._findings.add(kind, f"stage {self._state.name}{text}")


def _as_text(steps: list[int]) -> str:
    return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"
