"""Whatever a node's disk does, a rank feeds what the store holds, and training waits for nothing."""

import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sft.data.loader import StepLoader
from sft.data.staging import StagingOrder, StagingReport
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.training.staging import Staging
from sft.world import World
from tests.data.planned import PACKS_PER_MICRO_BATCH, Planned, fetch, publish_planned

WORLD = World(1, 3, 0, "n1")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return publish_planned(tmp_path_factory.mktemp("shared"))


def stage_on(planned: Planned, disk: Path) -> tuple[Staging, Callable[[], list[str]]]:
    """The staging of a rank of that node, and what it has said so far."""
    attempt = AttemptFolder(disk)
    staging = Staging(planned.order(WORLD, disk), planned.store, planned.plan, EventLog(attempt, WORLD.rank))
    return staging, lambda: [event.text for event in read_events(attempt)]


def feeds_what_the_store_holds(planned: Planned, staging: Staging) -> None:
    steps = planned.plan.steps(WORLD.size, PACKS_PER_MICRO_BATCH)
    direct = StepLoader(planned.store, planned.plan, steps, WORLD.rank)
    loader = StepLoader(planned.store, planned.plan, steps, WORLD.rank, staging.read)
    for step in range(steps.num_steps):
        for batch, wanted in zip(loader.micro_batches(step), direct.micro_batches(step), strict=True):
            assert batch.fed == wanted.fed, "ids and digests"
            assert batch.input_ids_BT.equal(wanted.input_ids_BT)
            assert batch.loss_mask_BT.equal(wanted.loss_mask_BT)
            assert batch.cu_seqlens.equal(wanted.cu_seqlens)


def test_an_order_is_small_however_many_packs_it_is_about(planned: Planned) -> None:
    assert len(pickle.dumps(planned.order(WORLD, None))) < 1000 < planned.plan.costs.nbytes


def test_packs_come_from_the_disk_once_they_are_there(planned: Planned, tmp_path: Path) -> None:
    staging, said = stage_on(planned, tmp_path)
    num_own = len(planned.fed_by(WORLD))
    feeds_what_the_store_holds(planned, staging)
    assert (staging.num_staged, staging.num_direct) == (0, num_own)
    staging.start(fetch)
    wait_for(lambda: planned.there(tmp_path) == planned.fed_by(WORLD))
    feeds_what_the_store_holds(planned, staging)
    assert (staging.num_staged, staging.num_direct) == (num_own, num_own)
    staging.close()
    assert said() == []


def test_a_damaged_disk_gives_no_wrong_token_and_is_told_once(planned: Planned, tmp_path: Path) -> None:
    fetch(planned.order(WORLD, tmp_path))
    staging, said = stage_on(planned, tmp_path)
    path = planned.staged(tmp_path).folder / "packs"
    content = bytearray(path.read_bytes())
    content[100 :: len(content) // 10] = bytes(byte ^ 4 for byte in content[100 :: len(content) // 10])
    path.write_bytes(content)
    feeds_what_the_store_holds(planned, staging)
    assert 0 < staging.num_direct <= 11
    (text,) = said()
    assert "is not what was staged (its hash differs); such packs are read from the shared storage" in text


def test_a_disk_that_is_lost_costs_nothing_but_time(planned: Planned, tmp_path: Path) -> None:
    fetch(planned.order(WORLD, tmp_path))
    (tmp_path / f"sft-staging-{os.getuid()}").rename(tmp_path / "lost")
    (tmp_path / f"sft-staging-{os.getuid()}").symlink_to(tmp_path / "lost")
    staging, said = stage_on(planned, tmp_path)
    staging.start(fetch)
    feeds_what_the_store_holds(planned, staging)
    staging.close()
    assert staging.num_staged == 0
    (text,) = said()
    assert text.startswith("packs are not staged on node n1: ")


def test_training_waits_for_no_pack_and_for_no_fetch_at_its_end(planned: Planned, tmp_path: Path) -> None:
    ended = threading.Event()

    def fetch_slowly(order: StagingOrder, is_wanted: Callable[[], bool]) -> None:
        wait_for(lambda: not is_wanted())
        ended.set()

    staging, said = stage_on(planned, tmp_path)
    staging.start(fetch_slowly)
    feeds_what_the_store_holds(planned, staging)
    assert not ended.is_set()
    staging.close()
    assert ended.is_set()
    assert said() == []


def test_what_ends_the_staging_is_told_and_ends_nothing_else(planned: Planned, tmp_path: Path) -> None:
    def fail(order: StagingOrder, is_wanted: Callable[[], bool]) -> StagingReport:
        raise RuntimeError("the task's process was killed")

    def fill(order: StagingOrder, is_wanted: Callable[[], bool]) -> StagingReport:
        return fetch(order, is_wanted, least_free_share=1.1)

    for failing, text in ((fail, "RuntimeError: the task's process was killed"), (fill, "% of the disk is free")):
        staging, said = stage_on(planned, tmp_path)
        staging.start(failing)
        wait_for(lambda heard=said, words=text: any(words in line for line in heard()))
        feeds_what_the_store_holds(planned, staging)
        staging.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
