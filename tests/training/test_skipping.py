"""A step that is not finite names the packs that may be the cause: those of the ranks where it showed."""

from pathlib import Path
from typing import Any

import pytest

from sft.data.loader import StepLoader
from sft.engine.engine import NonFiniteError
from sft.errors import TrainingError
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.step_plan import StepPlan
from sft.training.skipping import SkipRule
from sft.world import World

NOTHING: Any = None


@pytest.mark.parametrize(
    ("sequence_parallel", "ranks", "where"),
    [
        (1, (1, 2), "rank 1 with packs 1 and rank 2 with packs 2"),
        (2, (2, 3), "ranks 2, 3 with packs 3, 4"),
        (2, (1, 2), "rank 1 with packs 0, 1, 2 and rank 2 with packs 3, 4"),
        (4, (), "packs 0 to 4"),
    ],
)
def test_ranks_that_share_rows_are_named_with_the_packs_of_their_group(
    tmp_path: Path, sequence_parallel: int, ranks: tuple[int, ...], where: str
) -> None:
    worlds = [World(rank, 5, sequence_parallel=sequence_parallel) for rank in range(5)]
    for world in worlds:  # the last has no group where ranks share rows
        steps = StepPlan(5, 5, world.data_size, 1)
        loader = StepLoader(
            NOTHING, NOTHING, steps, world.data_rank, part=world.sequence_place, num_parts=world.num_parts
        )
        folder = AttemptFolder(tmp_path / str(world.rank))
        folder.path.mkdir()
        rule = SkipRule("skip", 2, EventLog(folder, world.rank), world)
        rule.count_skipped(0, loader, NonFiniteError("the loss is nan", ranks))
        assert [event.text for event in read_events(folder)] == [f"step 0, {where}: the loss is nan"] * world.is_first
        rule.count_update()
        rule.count_skipped(0, loader, NonFiniteError("the loss is nan", ranks))
        with pytest.raises(TrainingError, match=f"{where}: the loss is nan\n2 steps in a row were not finite"):
            rule.count_skipped(0, loader, NonFiniteError("the loss is nan", ranks))
        assert rule.num_skipped == 3
