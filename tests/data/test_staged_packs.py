"""Each node has its own ranks' packs, equal to those of the store, and nothing is fetched that is there and sound."""

import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sft.atomic_files import DamagedError, read_json
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.stage_plan import plan_stages
from sft.data.staged_packs import StagedPacks, plan_key, remove_unused, staging_root
from sft.data.staging import StagingReport
from sft.world import World
from tests.data.planned import PACKS_PER_STEP, Planned, assert_equal, fetch, nodes_of, publish_planned
from tests.data.stores import config_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return publish_planned(tmp_path_factory.mktemp("shared"))


# ---------------------------------------------------------------- which packs are where


def test_a_staged_pack_is_that_of_the_store(planned: Planned, tmp_path: Path) -> None:
    report = fetch(planned.order(World(), tmp_path))
    assert planned.there(tmp_path) == set(range(len(planned.plan)))
    assert report.num_fetched == len(planned.plan)
    assert report.is_complete
    assert read_json(planned.store_path.with_name("localhost.json"))["bytes_fetched"] == report.bytes_fetched


@pytest.mark.parametrize("first_step", [0, 7])
@pytest.mark.parametrize(("num_nodes", "ranks_per_node"), [(1, 3), (2, 1), (2, 2), (3, 1), (4, 2), (7, 1)])
def test_each_node_has_the_packs_of_its_own_ranks_and_no_others(
    planned: Planned, tmp_path: Path, num_nodes: int, ranks_per_node: int, first_step: int
) -> None:
    there, num_bytes = [], 0
    for world in nodes_of(num_nodes, ranks_per_node):
        disk = tmp_path / world.node
        report = fetch(planned.order(world, disk, first_step))
        there.append(planned.there(disk))
        assert there[-1] == planned.fed_by(world, first_step)
        assert report.bytes_fetched == planned.num_bytes(there[-1])
        num_bytes += report.bytes_fetched
    assert sum(map(len, there)) == len(set.union(*there)), "a pack is on two nodes"
    assert set.union(*there) == set(range(first_step * PACKS_PER_STEP, len(planned.plan)))
    # The disks together hold every pack once, however many there are.
    assert num_bytes == planned.num_bytes(set.union(*there))


def test_after_a_change_of_size_only_what_is_missing_moves(planned: Planned, tmp_path: Path) -> None:
    sizes = [(2, 0), (1, 3), (3, 5), (2, 4)]
    has: dict[str, set[int]] = {f"n{i}": set() for i in range(3)}
    for num_nodes, first_step in sizes:
        for world in nodes_of(num_nodes, ranks_per_node=2):
            disk, wanted = tmp_path / world.node, planned.fed_by(world, first_step)
            report = fetch(planned.order(world, disk, first_step))
            missing, known = wanted - has[world.node], wanted & has[world.node]
            assert (report.num_fetched, report.num_there) == (len(missing), len(known))
            assert report.bytes_fetched == planned.num_bytes(missing)
            assert report.bytes_there == planned.num_bytes(known)
            has[world.node] |= wanted
            assert planned.there(disk) == has[world.node]


def test_two_plans_share_a_disk_and_nothing_else(planned: Planned, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", {"mixture": {"rates": "equal"}}, run={"seed": 18})
    (other,) = plan_stages(config, planned.store)
    assert plan_key(other, planned.store) != plan_key(planned.plan, planned.store)
    assert plan_key(PackPlan.open(planned.plan_path), planned.store) == plan_key(planned.plan, planned.store)
    fetch(planned.order(World(), tmp_path))
    staged = StagedPacks(staging_root(str(tmp_path)), other, planned.store)
    assert all(staged.read(pack) is None for pack in range(len(other)))


# ---------------------------------------------------------------- damage, full disks, kills


def test_any_bit_that_is_turned_is_noticed_and_the_pack_fetched_again(planned: Planned, tmp_path: Path) -> None:
    fetch(planned.order(World(), tmp_path))
    rng = np.random.default_rng(0)
    staged = planned.staged(tmp_path)
    num_bytes = planned.num_bytes({5})
    slot_bytes = staged._slot_bytes
    cases = [("packs", 5 * slot_bytes + at) for at in (*range(24), *rng.integers(24, num_bytes, 200).tolist())]
    cases += [("digests", 5 * 8 + at) for at in range(8)]
    for name, at in cases:
        flip(staged.folder / name, at, 1 << int(rng.integers(8)))
        with pytest.raises(DamagedError, match="pack 5 is not what was staged"):
            staged.read(5)
        assert staged.read(4) is not None
        assert staged.read(6) is not None
        if name == "digests":
            report = fetch(planned.order(World(), tmp_path))
            assert (report.num_fetched, report.bytes_fetched) == (1, num_bytes)
        else:
            staged.write(planned.plan.read_pack(5, planned.store))
        pack = staged.read(5)
        assert pack is not None
        assert_equal(pack, planned.plan.read_pack(5, planned.store))


def test_a_pack_that_lies_at_anothers_place_is_noticed(planned: Planned, tmp_path: Path) -> None:
    fetch(planned.order(World(), tmp_path))
    staged = planned.staged(tmp_path)
    for name, size in (("packs", staged._slot_bytes), ("digests", 8)):
        content = bytearray((staged.folder / name).read_bytes())
        content[5 * size : 6 * size] = content[6 * size : 7 * size]
        (staged.folder / name).write_bytes(content)
    with pytest.raises(DamagedError):
        staged.read(5)


@pytest.mark.parametrize("name", ["packs", "digests"])
def test_a_file_that_is_cut_off_gives_no_wrong_pack(planned: Planned, tmp_path: Path, name: str) -> None:
    fetch(planned.order(World(), tmp_path))
    path = planned.staged(tmp_path).folder / name
    for part in (0.9, 0.5, 0.1, 0.0):
        os.truncate(path, int(path.stat().st_size * part) | 1 if part else 0)
        staged, num_good = planned.staged(tmp_path), 0
        for pack_id in range(len(planned.plan)):
            try:
                pack = staged.read(pack_id)
            except DamagedError:
                continue
            if pack is not None:
                assert_equal(pack, planned.plan.read_pack(pack_id, planned.store))
                num_good += 1
        assert num_good <= part * len(planned.plan) + 1
    assert fetch(planned.order(World(), tmp_path)).is_complete
    assert planned.there(tmp_path) == set(range(len(planned.plan)))


def test_a_full_disk_ends_the_staging_and_leaves_what_was_staged(planned: Planned, tmp_path: Path) -> None:
    slot_bytes = planned.staged(tmp_path)._slot_bytes
    with largest_file(20 * slot_bytes + 100):
        report = fetch(planned.order(World(), tmp_path))
    # A limit on the size of a file has another name than a full disk, but strikes in the same place.
    assert report.why_stopped in ("No space left on device", "File too large")
    assert not report.is_complete
    assert report.num_steps == 20 // PACKS_PER_STEP
    assert read_json(planned.store_path.with_name("localhost.json"))["why_stopped"] == report.why_stopped
    assert set(range(18)) <= planned.there(tmp_path) <= set(range(20))
    again = fetch(planned.order(World(), tmp_path))
    assert again.is_complete
    assert again.num_there >= 18


def test_a_disk_is_never_filled_up(planned: Planned, tmp_path: Path) -> None:
    report = fetch(planned.order(World(), tmp_path), least_free_share=1.1)
    assert report.why_stopped == "less than 110% of the disk is free"
    assert planned.there(tmp_path) == set()


def test_staging_ends_when_it_is_not_wanted_any_more(planned: Planned, tmp_path: Path) -> None:
    answers = iter([True, True, False])
    report = fetch(planned.order(World(), tmp_path), lambda: next(answers))
    assert planned.there(tmp_path) == set(range(2 * PACKS_PER_STEP))
    assert (report.num_steps, report.is_complete, report.why_stopped) == (2, False, None)


KILLED = """
import pickle, sys
from sft.data.staging import fetch_packs
order = pickle.load(sys.stdin.buffer)
print("ready", flush=True)
while True:
    fetch_packs(order, least_free_share=0.0)
"""


def test_two_that_stage_the_same_and_one_is_killed(planned: Planned, tmp_path: Path) -> None:
    import pickle  # noqa: PLC0415  (as Ray sends the order to its task)

    order = planned.order(World(), tmp_path)
    folder = planned.staged(tmp_path).folder
    reports: list[StagingReport] = []
    for delay in (0.0, 0.01, 0.02):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(pickle.dumps(order))
            other.stdin.close()
            assert other.stdout.readline() == b"ready\n"
            mine = threading.Thread(target=lambda: reports.append(fetch(order)))
            mine.start()
            time.sleep(delay)
            other.kill()
            mine.join(60)
        assert planned.there(tmp_path) == set(range(len(planned.plan)))
        assert reports[-1].num_fetched + reports[-1].num_there == len(planned.plan)
        for name in ("packs", "digests"):
            (folder / name).unlink()


# ---------------------------------------------------------------- the folder


def test_only_this_user_may_look_into_the_folder(planned: Planned, tmp_path: Path) -> None:
    fetch(planned.order(World(), tmp_path))
    folder = planned.staged(tmp_path).folder
    assert folder.parent == tmp_path / f"sft-staging-{os.getuid()}"
    for path in (folder.parent, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_is_not_this_users_alone_is_refused(planned: Planned, tmp_path: Path) -> None:
    root = tmp_path / f"sft-staging-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    root.symlink_to(tmp_path / "elsewhere")
    report = fetch(planned.order(World(), tmp_path))
    assert report.why_stopped is not None
    assert "belongs to this user alone" in report.why_stopped
    assert list((tmp_path / "elsewhere").iterdir()) == []
    root.unlink()
    root.mkdir(mode=0o700)
    root.chmod(0o750)
    with pytest.raises(PermissionError, match="belongs to this user alone"):
        staging_root(str(tmp_path))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(staging_root(str(tmp_path)), 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to this user alone"):
        staging_root(str(tmp_path))


def test_variables_are_those_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_SCRATCH", str(tmp_path))
    assert staging_root("$LOCAL_SCRATCH/packs").parent == tmp_path / "packs"
    monkeypatch.delenv("LOCAL_SCRATCH")
    with pytest.raises(OSError, match=r"data\.staging_dir: \$LOCAL_SCRATCH/packs is not an absolute path on this node"):
        staging_root("$LOCAL_SCRATCH/packs")


def test_what_nobody_has_used_for_a_week_is_removed(planned: Planned, tmp_path: Path) -> None:
    fetch(planned.order(World(), tmp_path))
    folder = planned.staged(tmp_path).folder
    week = 7 * 24 * 3600
    for age, is_there in ((week - 60, True), (week + 60, False)):
        os.utime(folder / "digests", (time.time() - age,) * 2)
        remove_unused(folder.parent)
        assert folder.is_dir() == is_there
    staged = planned.staged(tmp_path)
    os.utime(folder / "digests", (0, 0))
    planned.staged(tmp_path)  # opened: it is used again
    remove_unused(folder.parent)
    assert folder.is_dir()
    assert staged.read(0) is None


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No file of this process can become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
