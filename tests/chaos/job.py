"""A prepared job whose ranks are started again until they are done, as the launcher does it."""

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sft.atomic_files import MANIFEST
from sft.checkpoint.local_storage import checkpoint_path, published_steps
from sft.run_folder import RunFolder
from tests.chaos.faults import Schedule
from tests.chaos.rank import run_attempt
from tests.forked_ranks import DONE, logs_of, zygote

NUM_STEPS = {"broad": 4, "words": 12}
PACKS_PER_STEP = 6  # which three ranks share evenly, and four do not
MOST_ATTEMPTS = 8
HANG_TIMEOUT_SECONDS = 6.0
NEVER_SECONDS = 100.0
"""For runs in which nothing hangs: an attempt ends by its other faults alone, however slow the machine is."""


class Job(NamedTuple):
    """A prepared job."""

    content: dict[str, Any]
    workload: list[str | None]
    folder: Path
    variables: Mapping[str, str] = {}
    """In the environment of its ranks."""

    def prepare(self, name: str) -> RunFolder:
        """A run folder with the plans."""
        run = RunFolder(self.folder / name)
        shutil.copytree(self.folder / "prepared", run.path)
        return run

    def run(self, name: str, schedule: Schedule, spoiled_steps: Sequence[int] = ()) -> RunFolder:
        """Start attempts until one ends well."""
        run = self.prepare(name)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            codes = self.start(name, schedule, attempt, spoiled_steps)
            if set(codes) == {DONE}:
                struck = self.struck(name)
                assert struck or not schedule.faults, f"nothing happened: {schedule}"
                return run
            how = schedule.damage.get(attempt)
            if how is not None and _damage_newest(run, how, random.Random(schedule.seed)):
                (self.folder / f"{name}-{attempt}-between.log").write_text(f"chaos: {how} after attempt {attempt}\n")
        raise AssertionError(
            f"{schedule}\nwas not done after {MOST_ATTEMPTS} attempts\n{logs_of(self.folder / f'{name}-{attempt}')}"
        )

    def start(self, name: str, schedule: Schedule, attempt: int, spoiled_steps: Sequence[int] = ()) -> list[int]:
        """The exit codes of the ranks of one attempt."""
        size = schedule.sizes[min(attempt, len(schedule.sizes)) - 1]
        train = {"non_finite": "skip", "sequence_parallel": schedule.num_parts(attempt)}
        content = {**self.content, "train": {**self.content["train"], **train}}
        return zygote().start(
            run_attempt,
            size,
            self.folder / f"{name}-{attempt}",
            {**content, "run": {"name": name, "dir": str(self.folder / name)}},
            self.workload,
            [schedule.of(attempt, rank) for rank in range(size)],
            list(spoiled_steps),
            HANG_TIMEOUT_SECONDS if schedule.has_hang else NEVER_SECONDS,
            variables=self.variables,
        )

    def struck(self, name: str) -> list[str]:
        """The faults that a run really met, each once."""
        lines = [line for path in self.folder.glob(f"{name}-*.log") for line in path.read_text().splitlines()]
        return sorted({line.removeprefix("chaos: ") for line in lines if line.startswith("chaos: ")})


def _damage_newest(run: RunFolder, how: str, rng: random.Random) -> bool:
    """Damage the newest checkpoint of the stage under way; False if there is no older one to fall back to."""
    stages = [run.stage(index, stage) for index, stage in enumerate(NUM_STEPS)]
    under_way = next((stage for stage in stages if not stage.complete.is_file()), None)
    if under_way is None or len(steps := published_steps(under_way.checkpoints)) < 2:
        return False
    folder = checkpoint_path(under_way.checkpoints, steps[-1])
    if how == "lose the manifest":
        (folder / MANIFEST).unlink()
        return True
    victim = rng.choice(sorted(folder.iterdir()))
    if how == "lose a file":
        victim.unlink()
    elif how == "truncate":
        os.truncate(victim, rng.randrange(victim.stat().st_size))
    else:
        content = bytearray(victim.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        victim.write_bytes(content)
    return True
