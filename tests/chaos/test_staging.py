"""A run whose packs come from its nodes' disks, killed and of changing size, is the one that reads from the store."""

from pathlib import Path

import pytest

from sft.atomic_files import hash_file
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.verification.run_check import verify_run
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import NUM_STEPS, Job
from tests.chaos.test_schedules import losses


@pytest.mark.long
def test_packs_from_the_nodes_disks_train_the_same_model_to_the_bit(
    job: Job, undisturbed: RunFolder, tmp_path: Path
) -> None:
    data = {**job.content["data"], "staging": "node_local", "staging_dir": str(tmp_path)}
    staged = job._replace(content={**job.content, "data": data})
    faults = (Fault(1, 1, "train", 4 + 5, "kill"), Fault(2, 0, "train", 4, "kill"))
    run = staged.run("staged", Schedule(0, (2,), faults))
    for index, stage in enumerate(NUM_STEPS):
        found, wanted = (hash_file(r.stage(index, stage).model / "model.safetensors") for r in (run, undisturbed))
        assert found == wanted
        assert losses(run, index, stage) == losses(undisturbed, index, stage)
    assert verify_run(run).findings == ()
    events = [event for attempt in run.all_attempts() for event in read_events(attempt)]
    said = [event.facts for event in events if event.kind == "staging"]
    assert len(said) == len(NUM_STEPS)
    assert said[-1]["num_staged"] > 0
    (root,) = tmp_path.iterdir()
    assert list(root.iterdir()) == [], "a finished stage leaves the disk as it was"
