"""With its checkpoints in S3 a run that is killed is as good as one that never was."""

import pytest

from sft.atomic_files import hash_file
from sft.checkpoint.open_storage import stage_storage
from sft.config import CheckpointConfig
from sft.run_folder import RunFolder
from sft.verification.run_check import verify_run
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import NUM_STEPS, Job
from tests.s3_server import S3Server


@pytest.mark.long
def test_killed_while_it_saves_to_s3_each_pack_is_fed_once_and_the_model_is_equal_to_the_bit(
    job: Job, undisturbed: RunFolder, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    checkpoint = {**job.content["checkpoint"], "dir": s3_server.url("chaos")}
    in_s3 = job._replace(content={**job.content, "checkpoint": checkpoint}, variables=s3_server.environment)
    # All parts are there and no manifest; then the newest is published and the oldest not yet deleted.
    faults = (Fault(1, 0, "publish", 3, "kill"), Fault(2, 0, "delete", 1, "kill"))
    run = in_s3.run("s3", Schedule(0, (2,), faults))
    verified = verify_run(run)
    assert verified.is_finished
    assert verified.findings == ()
    for index, stage in enumerate(NUM_STEPS):
        found, wanted = (hash_file(r.stage(index, stage).model / "model.safetensors") for r in (run, undisturbed))
        assert found == wanted
        folder = run.stage(index, stage)
        steps = stage_storage(CheckpointConfig(**checkpoint), folder).steps()
        assert len(steps) == checkpoint["keep_last"]
        assert steps[-1] == NUM_STEPS[stage]
        assert not folder.checkpoints.exists()
