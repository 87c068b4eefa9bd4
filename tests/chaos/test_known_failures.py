"""What went wrong for users of other systems when a run was resumed. Each test is named after it.

The threads: ms-swift #10050, #4505, #4083 · transformers #40691 · accelerate #2016 · OpenRLHF #1200, #839, #920 ·
Automodel #533, #3254 · prime-rl #745 · verl #7401 · torchtitan #409 · LLaMA-Factory #5354, #7532.
"""

import json

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sft.checkpoint.local_place import published_steps
from sft.data.planning.pack_plan import PackPlan
from sft.ledger import Ledger, read_ledger
from sft.run_folder import RunFolder, StageFolder
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import NUM_STEPS, Job

SAVED_EVERY = 3


@pytest.fixture(scope="module")
def resumed(job: Job) -> RunFolder:
    """Killed in the step behind a checkpoint, then in the middle of a save; resumed with one rank, then with three."""
    faults = (Fault(1, 1, "train", NUM_STEPS["broad"] + 7, "kill"), Fault(2, 0, "write", 1, "kill"))
    return job.run("resumed", Schedule(0, (2, 1, 3), faults))


@pytest.fixture
def words(resumed: RunFolder) -> StageFolder:
    return resumed.stage(1, "words")


@pytest.fixture
def ledger(words: StageFolder) -> Ledger:
    return read_ledger(words.ledger)


def test_the_data_restarts_silently_from_the_first_epoch(ledger: Ledger) -> None:
    """ms-swift #10050, prime-rl #745: here the packs go on where they were, whatever happened in between."""
    fed = [pack for step in sorted(ledger.effective) for pack in ledger.effective[step].packs]
    assert fed == list(range(len(fed)))


def test_the_step_after_resuming_is_off_by_one(resumed: RunFolder, words: StageFolder) -> None:
    """OpenRLHF #1200, torchtitan #409: the first step of an attempt is the number of steps that its checkpoint has."""
    lines = [json.loads(line) for line in words.ledger.read_text().splitlines()]
    began = {line["attempt"]: line["resumed_at"] for line in lines if "resumed_at" in line}
    first = {attempt: next(line["step"] for line in lines if line["attempt"] == attempt and "step" in line)
             for attempt in began}  # fmt: skip
    assert list(began) == [1, 2, 3]
    assert first == began
    assert began[2] in (SAVED_EVERY, 2 * SAVED_EVERY), "the newest that was published when the rank was killed"


def test_a_checkpoint_at_the_end_of_an_epoch_skips_the_next_one(ledger: Ledger) -> None:
    """verl #7401: the checkpoint of step 6 is also the last of a pass over the tasks; nothing behind it is left out."""
    assert sorted(ledger.effective) == list(range(NUM_STEPS["words"]))


def test_each_rank_resumes_its_own_loader_and_another_number_of_ranks_finds_none(
    ledger: Ledger, words: StageFolder
) -> None:
    """Automodel #533, accelerate #2016: a step's packs are the same for one, two and three ranks."""
    assert {entry.world_size for entry in ledger.effective.values()} == {2, 3}
    assert {entry.world_size for entry in ledger.rolled_back} >= {1}
    packs_per_step = len(PackPlan.open(words.packs)) / NUM_STEPS["words"]
    assert {len(entry.packs) for entry in ledger.effective.values()} <= {int(packs_per_step), int(packs_per_step) + 1}


def test_an_interrupted_save_hangs_the_next_resume(resumed: RunFolder, words: StageFolder) -> None:
    """Automodel #3254: what the killed save left is gone, and its step was saved again."""
    assert published_steps(words.checkpoints)[-1] == NUM_STEPS["words"]
    assert not list(words.checkpoints.glob(".*partial*"))


def test_the_saved_model_has_empty_parameters_or_cannot_be_loaded(words: StageFolder) -> None:
    """OpenRLHF #839, #920, LLaMA-Factory #7532: under ZeRO-3 a rank's parameters have no elements of their own."""
    weights = load_file(words.model / "model.safetensors")
    assert min(values.numel() for values in weights.values()) > 0
    found, problems = AutoModelForCausalLM.from_pretrained(words.model, output_loading_info=True)
    assert sum(p.numel() for p in found.parameters()) == sum(values.numel() for values in weights.values())
    assert not problems["missing_keys"]
    assert not problems["mismatched_keys"]
