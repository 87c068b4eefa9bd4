"""What Ray's errors say in a sentence. The texts are those of Ray 2.60."""

import pickle
from pathlib import Path

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from launcher.cluster.ray_words import WorkerRecord, in_a_sentence
from sft.atomic_files import write_json
from sft.run_folder import RunFolder
from sft.training.last_words import describe_end

KILLED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed "
    "unexpectedly due to SIGSEGV or another unexpected error."
)
LOST_NODE = (
    "The actor died because its node has died. Node Id: 8e83\n"
    "\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
)
NO_MEMORY = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.1, ID: 8e83) where the "
    "task (actor ID: 1, name=TrainController.__init__, pid=7, memory used=0.10GB) was running was 22.90GB / 23.48GB "
    "(0.975), which exceeds the memory usage threshold of 0.95. Ray killed this worker (ID: 1) because it was the most "
    "recently scheduled task; to see more information about memory usage on this node, use `ray logs raylet.out`."
)


def died(text: str) -> ActorDiedError:
    return ActorDiedError(
        ActorDiedErrorContext(error_message=text, actor_id=b"\0" * 16, class_name="RayTrainWorker", pid=9)
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (died(KILLED), "its process was killed or has crashed, perhaps out of memory"),
        (died(LOST_NODE), "its node was lost (health check failed due to missing too many heartbeats)"),
        (OutOfMemoryError(NO_MEMORY), "Ray ended it because its node was out of memory (22.90GB / 23.48GB)"),
        (
            died("The actor is dead because its owner has died. Owner Id: 8e"),
            "the process that had started it was gone",
        ),
        (ActorUnavailableError("RpcError: Connection refused", b"\0" * 16), "its process does not answer any more"),
        (died(""), "its process or node is gone"),
        (died("Something that is new."), "Something that is new."),
        (died("x" * 5000), "x" * 300),
    ],
)
def test_what_became_of_an_actor_is_one_short_sentence(error: RayError, sentence: str) -> None:
    for given in (error, WorkerHealthCheckFailedError("A worker health check failed.", error), ControllerError(error)):
        found = in_a_sentence(given)
        assert sentence in found
        assert len(found) <= 300
        assert "\n" not in found
        assert "class_name" not in found


def test_the_controller_writes_down_how_the_workers_ended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record: WorkerRecord = pickle.loads(pickle.dumps(WorkerRecord(run)))  # so it travels to the controller
    record.after_exception(None, {0: RuntimeError("no attempt has begun")})
    for rank in range(3):
        write_json(run.attempt(1).rank(rank), {"pid": 100 + rank, "node": f"n{rank}"})
    record.after_exception(None, {0: RuntimeError("NCCL error: remote process exited"), 2: died(LOST_NODE)})
    assert describe_end(run.attempt(1)) == (
        "rank 2 (node n2, pid 102) was gone: its node was lost (health check failed due to missing too many heartbeats)"
    )


def test_a_worker_that_ray_ends_for_want_of_memory_is_the_cause(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_json(run.attempt(1).rank(1), {"pid": 101, "node": "n1"})
    error = WorkerHealthCheckFailedError("A worker health check failed.", OutOfMemoryError(NO_MEMORY))
    WorkerRecord(run).after_exception(None, {1: error})
    why = describe_end(run.attempt(1))
    assert why.startswith("rank 1 (node n1, pid 101) was gone: Ray ended it because its node was out of memory")
