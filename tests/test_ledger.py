"""The ledger tells what was fed, whoever fed it, and keeps it through kills and restarts."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.collate import collate
from sft.ledger import (
    LedgerEntry,
    LedgerWriter,
    digest_of_packs,
    entry_from_slots,
    pack_digest,
    read_ledger,
    slots_of,
)
from sft.schema import Pack
from tests.checkpoint.counting import counted

ROOT = Path(__file__).parents[1]


def pack_of(pack_id=3, ids=(5, 6, 7, 8, 9), mask=(0, 1, 0, 0, 1), starts=(0, 2, 5), examples=(11, 12)):
    arrays = (np.array(examples), np.array(ids, np.uint16), np.array(mask, bool), np.array(starts))
    return Pack(pack_id, *arrays)


def entry(step, attempt=1, **changes):
    return replace(LedgerEntry(step, attempt, 2, (2 * step, 2 * step + 1), 77 + step, True), **changes)


def test_the_digest_is_of_no_dtype_and_changes_with_everything_that_is_fed():
    pack = pack_of()
    assert 0 <= pack_digest(pack) < 2**63
    for dtype in (np.uint32, np.int64, ">i4"):
        assert pack_digest(replace(pack, input_ids=pack.input_ids.astype(dtype))) == pack_digest(pack)
    others = [
        pack_of(pack_id=4),
        pack_of(examples=(12, 11)),
        pack_of(ids=(5, 6, 7, 9, 8)),
        pack_of(mask=(0, 1, 0, 1, 1)),
        pack_of(starts=(0, 3, 5)),
        pack_of(ids=(5, 6, 7, 8), mask=(0, 1, 0, 0), starts=(0, 2, 4)),
        pack_of(mask=(0, 1, 0, 0, 1, 0), ids=(5, 6, 7, 8, 9, 0), starts=(0, 2, 6)),
    ]
    assert len({pack_digest(p) for p in (pack, *others)}) == len(others) + 1


def test_the_digest_stays_the_same_from_version_to_version():
    """Ledgers of old runs are verified by it."""
    assert pack_digest(pack_of()) == 6_726_488_120_762_756_671


@given(st.lists(st.integers(0, 2**63 - 1), max_size=12), st.integers(1, 6), st.integers(0, 5), st.randoms())
def test_any_split_over_ranks_gives_the_same_packs_and_the_same_digest(digests, world_size, more_slots, random):
    fed = random.sample(list(enumerate(digests, start=40)), len(digests))
    cuts = sorted(random.choices(range(len(fed) + 1), k=world_size - 1))
    parts = [fed[a:b] for a, b in zip([0, *cuts], [*cuts, len(fed)], strict=True)]
    slots_per_rank = max(map(len, parts)) + more_slots
    summed = np.zeros(world_size * slots_per_rank + 1, np.int64)
    for rank, part in enumerate(parts):
        summed += np.array(slots_of(part, rank, world_size, slots_per_rank), np.int64)  # wraps around, as ranks do
    found = entry_from_slots(9, 2, world_size, summed.tolist(), True)
    assert found == LedgerEntry(9, 2, world_size, range(40, 40 + len(fed)), sum(digests) % 2**63, True)


def test_a_negative_sum_is_right():
    parts = [[(0, 2**63 - 1)], [(1, 2**63 - 2)], [(2, 5)]]
    summed = sum(np.array(slots_of(part, rank, 3, 1), np.int64) for rank, part in enumerate(parts))
    assert summed[-1] == 2  # 2**64 + 2
    summed = sum(np.array(slots_of(part, rank, 3, 1), np.int64) for rank, part in enumerate(parts[:2]))
    assert summed[-1] < 0
    assert entry_from_slots(0, 1, 2, summed.tolist(), True).digest == (2**64 - 3) % 2**63


def test_a_micro_batch_says_which_packs_it_is_made_of():
    packs = [pack_of(8), pack_of(9, ids=(1, 2, 3, 4, 5))]
    fed = collate([packs[0], None, packs[1]]).fed
    assert fed == ((8, pack_digest(packs[0])), (9, pack_digest(packs[1])))
    assert digest_of_packs(reversed(packs)) == sum(digest for _, digest in fed) % 2**63
    assert collate([None]).fed == ()


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "stage" / "ledger.jsonl"
    writer = LedgerWriter(path, 1)
    writer.resume(0)
    entries = [entry(0), entry(1, update=False), entry(2, packs=(4,))]
    for one in entries:
        writer.append(one)
    writer.sync()
    ledger = read_ledger(path)
    assert ledger.effective == dict(enumerate(entries))
    assert (ledger.rolled_back, ledger.repeated, ledger.problems, len(ledger.resumes)) == ((), (), (), 1)


def write_attempts(path, *attempts):
    """(first step, last step) of each attempt."""
    for number, (first, last) in enumerate(attempts, start=1):
        writer = LedgerWriter(path, number)
        writer.resume(first)
        for step in range(first, last):
            writer.append(entry(step, number))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), max_size=6))
def test_each_attempt_rolls_back_what_stands_behind_the_step_that_it_resumes_at(tmp_path_factory, attempts):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    attempts = [(first, first + length) for first, length in attempts]
    expected, num_written = {}, 0
    for number, (first, last) in enumerate(attempts, start=1):
        expected = {step: attempt for step, attempt in expected.items() if step < first}
        expected |= dict.fromkeys(range(first, last), number)
        num_written += last - first
    write_attempts(path, (0, 0), *attempts)
    ledger = read_ledger(path)
    assert {step: e.attempt - 1 for step, e in ledger.effective.items()} == expected
    assert len(ledger.rolled_back) + len(expected) == num_written
    assert len(ledger.resumes) == len(attempts) + 1
    assert (ledger.repeated, ledger.problems) == ((), ())


@pytest.mark.parametrize("rest", ['{"step": 2, "att', '{"step": 2}', "\0\0\0", "[" * 200_000])
def test_a_half_written_line_of_a_killed_process_is_cut_off(tmp_path, rest):
    path = tmp_path / "ledger.jsonl"
    write_attempts(path, (0, 2))
    with path.open("a") as file:
        file.write(rest)
    before = read_ledger(path)
    assert (sorted(before.effective), before.problems) == ([0, 1], ())
    writer = LedgerWriter(path, 2)
    writer.resume(2)
    writer.append(entry(2, 2))
    assert sorted(read_ledger(path).effective) == [0, 1, 2]
    assert [json.loads(line).get("step") for line in path.read_text().splitlines()] == [None, 0, 1, None, 2]


def test_a_damaged_line_and_one_of_another_attempt_are_problems_with_their_numbers(tmp_path):
    path = tmp_path / "ledger.jsonl"
    write_attempts(path, (0, 4))
    lines = path.read_bytes().split(b"\n")
    lines[2] = b"\xff" + lines[2][1:]
    lines[3] = lines[3].replace(b'"digest"', b'"digits"')
    lines[4] = lines[4].replace(b'"attempt": 1', b'"attempt": 7')
    lines.insert(-1, b"[3]")
    path.write_bytes(b"\n".join(lines))
    ledger = read_ledger(path)
    assert sorted(ledger.effective) == [0, 3]
    assert [problem.split(" (")[0] for problem in ledger.problems] == [
        "line 3 is damaged",
        "line 4 is damaged",
        "line 5 is of attempt 7, but attempt 1 was training",
        "line 6 is damaged",
    ]


def test_what_a_newer_version_adds_to_a_line_is_passed_over(tmp_path):
    path = tmp_path / "ledger.jsonl"
    lines = [
        {"resumed_at": 0, "attempt": 1, "program": "sft 9.1"},
        {**asdict(entry(0)), "packs": list(entry(0).packs), "watts": 350.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = read_ledger(path)
    assert ledger.problems == ()
    assert ledger.effective == {0: entry(0)}


def test_a_step_that_stands_there_twice_is_repeated(tmp_path):
    path = tmp_path / "ledger.jsonl"
    write_attempts(path, (0, 3))
    writer = LedgerWriter(path, 1)
    writer.append(entry(1, packs=(9,)))
    ledger = read_ledger(path)
    assert ledger.repeated == (entry(1),)
    assert list(ledger.effective[1].packs) == [9]


WRITES_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
from sft.ledger import LedgerEntry, LedgerWriter
writer = LedgerWriter(Path(sys.argv[1]), 1)
writer.resume(0)
for step in itertools.count():
    writer.append(LedgerEntry(step, 1, 2, (step,), step, True))
    print(step, flush=True)
"""


def test_a_kill_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}) as process:
        said = [process.stdout.readline() for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    last = int([line for line in said if line.endswith(b"\n")][-1])
    assert last >= 49
    ledger = read_ledger(path)
    assert set(range(last + 1)) <= set(ledger.effective)
    assert ledger.problems == ()


def test_to_go_on_with_a_long_ledger_only_its_end_is_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    write_attempts(path, (0, 10_000))
    size, read = path.stat().st_size, []
    with counted(read):
        LedgerWriter(path, 2).resume(9_000)
    assert size > 1_000_000
    assert read[0].bytes_read < 100_000


def test_packs_that_follow_each_other_take_no_memory_and_are_the_packs_that_were_written(tmp_path):
    path = tmp_path / "ledger.jsonl"
    writer = LedgerWriter(path, 1)
    writer.resume(0)
    for step, packs in enumerate(([7, 8, 9], [9, 8, 7], [7, 9], [], [5])):
        writer.append(entry(step, packs=packs))
    ledger = read_ledger(path)
    assert [list(ledger.effective[step].packs) for step in range(5)] == [[7, 8, 9], [9, 8, 7], [7, 9], [], [5]]
    assert isinstance(ledger.effective[0].packs, range)


@pytest.mark.parametrize("packs", [[1.5, 2.5], ["a"], [True, None], "12", {"0": 1}, None])
def test_packs_that_are_no_whole_numbers_are_a_damaged_line(tmp_path, packs):
    path = tmp_path / "ledger.jsonl"
    write_attempts(path, (0, 1))
    with path.open("a") as file:
        file.write(json.dumps({**asdict(entry(1)), "packs": packs}) + "\n")
    ledger = read_ledger(path)
    assert (sorted(ledger.effective), [p.split(" (")[0] for p in ledger.problems]) == ([0], ["line 3 is damaged"])
