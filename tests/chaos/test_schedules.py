"""Whatever happens to a run, as often as it happens: the model is the undisturbed one, and each pack was fed once.

`make test-cluster` tries a few schedules, `make chaos` many more. One can be run alone: `pytest tests/chaos -k same-7`.
"""

import json

import pytest
from safetensors.torch import load_file

from sft.atomic_files import hash_file, read_json
from sft.config import SftConfig
from sft.config_file import read_yaml
from sft.data.planning.pack_plan import PackPlan
from sft.ledger import read_ledger
from sft.recomputed_layers import packs_or_one
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.step_plan import real_packs
from sft.verification.run_check import verify_run
from tests.chaos.conftest import Tell
from tests.chaos.faults import Fault, Schedule, random_schedule, shared_schedule
from tests.chaos.job import NUM_STEPS, Job
from tests.chaos.rank import ENDED

pytestmark = pytest.mark.long


def test_with_as_many_ranks_the_result_is_equal_to_the_bit(
    job: Job, undisturbed: RunFolder, same_seed: int, tell: Tell
) -> None:
    schedule = random_schedule(same_seed, keeps_size=True)
    run = job.run(f"same-{same_seed}", schedule)
    for index, stage in enumerate(NUM_STEPS):
        found, wanted = (hash_file(r.stage(index, stage).model / "model.safetensors") for r in (run, undisturbed))
        assert found == wanted, str(schedule)
        assert losses(run, index, stage) == losses(undisturbed, index, stage)
    check_ledger(run, schedule)
    tell(run, job.struck(run.path.name), "to the bit")


def test_with_other_ranks_the_result_is_equal_to_rounding(
    job: Job, undisturbed: RunFolder, other_seed: int, tell: Tell
) -> None:
    schedule = random_schedule(1000 + other_seed, keeps_size=False)
    run = job.run(f"other-{other_seed}", schedule)
    tell(run, job.struck(run.path.name), f"to {equal_to_rounding(run, undisturbed, schedule):.0e}")


def test_with_ranks_that_share_rows_the_result_is_equal_to_rounding(
    job: Job, undisturbed: RunFolder, shared_seed: int, tell: Tell
) -> None:
    schedule = shared_schedule(2000 + shared_seed)
    run = job.run(f"shared-{shared_seed}", schedule)
    tell(run, job.struck(run.path.name), f"to {equal_to_rounding(run, undisturbed, schedule):.0e}")


def test_a_run_goes_on_with_another_number_of_ranks_to_a_row(job: Job, undisturbed: RunFolder) -> None:
    faults = (Fault(1, 0, "train", 3, "kill"), Fault(2, 0, "train", 6, "kill"), Fault(3, 3, "train", 5, "kill"))
    schedule = Schedule(0, (2, 2, 4, 4, 4), faults, parts=(2, 1, 4, 2, 1))
    run = job.run("shared-2-1-4", schedule)
    equal_to_rounding(run, undisturbed, schedule)
    assert len(job.struck(run.path.name)) == len(faults)
    for name, stage in (("broad", 0), ("words", 1)):
        found, wanted = (read_json(r.evaluation(r.stage(stage, name))) for r in (run, undisturbed))
        assert found["tasks"].keys() == wanted["tasks"].keys()
        for task, numbers in wanted["tasks"].items():
            assert found["tasks"][task] == pytest.approx(numbers, rel=1e-4)


def equal_to_rounding(run: RunFolder, undisturbed: RunFolder, schedule: Schedule) -> float:
    """The largest difference of a tensor, as a share of it; the run is in order."""
    largest = 0.0
    for index, stage in enumerate(NUM_STEPS):
        found, wanted = (load_file(r.stage(index, stage).model / "model.safetensors") for r in (run, undisturbed))
        for name, values in wanted.items():
            difference = float((found[name] - values).norm() / values.norm())
            assert difference < 1e-5, f"{schedule}: {name}"
            largest = max(largest, difference)
        assert losses(run, index, stage) == pytest.approx(losses(undisturbed, index, stage), rel=1e-5)
    check_ledger(run, schedule)
    return largest


def test_skipped_steps_stay_skipped_in_a_run_that_is_killed(job: Job) -> None:
    spoiled = (2, 7)
    straight = job.run("spoiled", Schedule(0, (2,), ()), spoiled)
    faults = (Fault(1, 1, "train", 4 + 9, "kill"), Fault(2, 0, "publish", 2, "kill"))
    run = job.run("spoiled-killed", Schedule(0, (2,), faults), spoiled)
    for index, stage in enumerate(NUM_STEPS):
        found, wanted = (hash_file(r.stage(index, stage).model / "model.safetensors") for r in (run, straight))
        assert found == wanted
        ledger = read_ledger(run.stage(index, stage).ledger)
        skipped = [step for step, entry in ledger.effective.items() if not entry.update]
        assert skipped == [step for step in spoiled if step < NUM_STEPS[stage]]
    assert verify_run(run).findings == ()
    events = [event.text for attempt in run.all_attempts() for event in read_events(attempt)]
    assert any(text.startswith("step 7, rank ") and " with packs " in text for text in events), events


def test_an_error_that_comes_again_stops_the_run_and_names_step_packs_and_rank(job: Job) -> None:
    run = job.prepare("poisoned")
    schedule = Schedule(0, (2,), tuple(Fault(attempt, 1, "train", 3, "poison") for attempt in (1, 2, 3)))
    assert job.start("poisoned", schedule, 1) != [ENDED, ENDED]
    assert job.start("poisoned", schedule, 2) != [ENDED, ENDED]
    assert job.start("poisoned", schedule, 3) == [ENDED, ENDED], "not tried a third time"
    ended = json.loads(run.attempt(3).ended.read_text())
    assert ended["why"] == "failed"
    config = SftConfig.model_validate(read_yaml(run.config).content)
    plan = PackPlan.open(run.stage(0, "broad").packs)
    dealt = plan.steps(2, packs_or_one(config.train.packs_per_micro_batch)).rank_packs(2, 1)
    packs = ", ".join(map(str, sorted(real_packs(dealt))))
    assert f"rank 1: stage broad, step 2, train, packs {packs}: ValueError: chaos" in ended["message"]


def check_ledger(run: RunFolder, schedule: Schedule) -> None:
    verified = verify_run(run)
    assert verified.is_finished
    assert verified.findings == (), f"{schedule}\n{verified.findings}"


def losses(run: RunFolder, index: int, stage: str) -> list[float]:
    """Of every step, as it counted in the end."""
    last = {}
    for line in run.stage(index, stage).metrics.read_text().splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            continue  # the line that a killed process left unfinished
        last[metrics["step"]] = metrics["loss"]
    assert sorted(last) == list(range(NUM_STEPS[stage]))
    return [last[step] for step in sorted(last)]
