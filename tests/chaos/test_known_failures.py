"""What went wrong for users of other systems when a run was saved and resumed. Each test is named after it."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sft.atomic_files import read_manifest
from sft.checkpoint.local_storage import checkpoint_path, published_steps
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.engine.engine import StepResult
from sft.engine.single_process import SingleProcessEngine
from sft.ledger import Ledger, read_ledger
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder, StageFolder
from sft.schema import IntArray, Pack
from sft.training.attempt import begin_attempt
from sft.training.control_signals import ControlSignals
from sft.training.curriculum import run_curriculum
from sft.training.prepared import Workload
from sft.training.run_context import RunContext
from sft.training.workload import prepare_workload
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import NUM_STEPS, Job
from tests.chaos.test_schedules import losses
from tests.conftest import WORDS, write_json_lines
from tests.jobs import PARTITION_ALL

NUM_EXAMPLES, PACKS_PER_STEP, EPOCHS = 36, 8, 3
"""Of the job with epochs: one example a pack, so an epoch is four and a half steps, and step 9 begins the third."""


def with_deepspeed(job: Job, **section: Any) -> Job:
    """The job, with parameters partitioned as those of a large model are."""
    content = {**job.content, "deepspeed": {"extra": PARTITION_ALL, **section}}
    return job._replace(content=content)


@pytest.fixture(scope="module")
def resumed(job: Job) -> RunFolder:
    """Killed with the checkpoint of step 6 published; alone, in the middle of saving step 9; with that published."""
    faults = (Fault(1, 0, "published", 4, "kill"), Fault(2, 0, "write", 1, "kill"), Fault(3, 0, "published", 1, "kill"))
    return with_deepspeed(job).run("resumed", Schedule(0, (2, 1, 3, 2), faults))


@pytest.fixture(scope="module")
def offloaded(job: Job) -> RunFolder:
    """With all state on the CPU; a rank is killed behind a checkpoint."""
    faults = (Fault(1, 0, "published", 3, "kill"),)
    offload = with_deepspeed(job, offload_optimizer="cpu", offload_parameters="cpu")
    return offload.run("offloaded", Schedule(0, (2,), faults))


@pytest.fixture
def words(resumed: RunFolder) -> StageFolder:
    return resumed.stage(1, "words")


@pytest.fixture
def ledger(words: StageFolder) -> Ledger:
    return read_ledger(words.ledger)


@pytest.fixture
def plan(words: StageFolder) -> PackPlan:
    return PackPlan.open(words.packs)


@pytest.fixture(scope="module")
def epochs(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of a single task, three times, whose second epoch ends with a step that has a checkpoint."""
    folder = tmp_path_factory.mktemp("epochs")
    three = itertools.islice(itertools.permutations(WORDS, 3), 0, 997 * NUM_EXAMPLES, 997)
    records = [{"prompt": f"{a} {b}", "completion": c} for a, b, c in three]
    write_json_lines(folder / "records.jsonl", records)
    content = {
        **job.content,
        "run": {"name": "prepared", "dir": str(folder / "prepared")},
        "data": {
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 16,
            "sources": [{"name": "next", "path": str(folder / "records.jsonl"), "format": "prompt_completion"}],
        },
        "stages": [{"name": "only", "budget": {"epochs": EPOCHS}, "optimizer": {"lr": 1e-3}}],
        "train": {**job.content["train"], "pack_len_tokens": 16, "packs_per_step": PACKS_PER_STEP},
        "checkpoint": {"every_steps": 3},
    }
    workload, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    return Job(content, workload.as_json(), folder)


@pytest.fixture(scope="module")
def repeated(epochs: Job) -> StageFolder:
    """Killed inside the second epoch, at the checkpoint of step 6; resumed, and killed at the end of that epoch."""
    faults = (Fault(1, 0, "published", 2, "kill"), Fault(2, 0, "published", 1, "kill"))
    return epochs.run("repeated", Schedule(0, (2, 1, 2), faults)).stage(0, "only")


def began(stage: StageFolder) -> dict[int, int]:
    """Attempt → the step from which on it trained."""
    lines = [json.loads(line) for line in stage.ledger.read_text().splitlines()]
    return {line["attempt"]: line["resumed_at"] for line in lines if "resumed_at" in line}


def test_the_data_restarts_silently_from_its_beginning(ledger: Ledger, plan: PackPlan) -> None:
    """prime-rl #745, PR #3332; ms-swift #4505; LLaMA-Factory #5354.

    Some is then trained twice and some never; here the packs go on where they were, whatever happened in between.
    """
    fed = [pack for step in sorted(ledger.effective) for pack in ledger.effective[step].packs]
    assert fed == list(range(len(plan)))


def test_what_is_saved_after_a_resume_has_the_position_of_the_resume(words: StageFolder) -> None:
    """prime-rl PR #3332: every further resume then goes back to where the first one was."""
    assert began(words) == {1: 0, 2: 6, 3: 6, 4: 9}, "the third attempt has saved step 9"


def test_the_step_after_resuming_is_off_by_one(resumed: RunFolder, undisturbed: RunFolder, words: StageFolder) -> None:
    """OpenRLHF #1200: the first step is the number of steps that the checkpoint has, and the learning rate its own."""
    trained = [json.loads(line) for line in words.metrics.read_text().splitlines()]
    first = {attempt: next(m["step"] for m in trained if m["attempt"] == attempt) for attempt in began(words)}
    assert first == began(words)
    straight = [json.loads(line) for line in undisturbed.stage(1, "words").metrics.read_text().splitlines()]
    rates = {metrics["step"]: metrics["lr"] for metrics in straight}
    assert [metrics["lr"] for metrics in trained] == [rates[metrics["step"]] for metrics in trained]


def test_trained_batches_are_skipped_one_by_one(epochs: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift #3951 (stuck at 0 % where there is much to skip), #4083 (with packing it ends with an error)."""
    run = epochs.prepare("skipped")
    config = SftConfig.model_validate({**epochs.content, "run": {"name": "skipped", "dir": str(run.path)}})
    stopped_after, read_pack, read = 5, PackPlan.read_pack, list[int]()
    train_step, trained = SingleProcessEngine.train_step, list[int]()

    def spied(plan: PackPlan, pack_id: int, store: TokenStore) -> Pack:
        read.append(pack_id)
        return read_pack(plan, pack_id, store)

    def stopped(engine: SingleProcessEngine, *arguments: Any) -> StepResult:
        trained.append(len(trained))
        if len(trained) == stopped_after:
            run.stop_file.touch()
        return train_step(engine, *arguments)

    def train() -> bool:
        attempt, signals = begin_attempt(run, OneRank()), ControlSignals(run.stop_file)
        workload = Workload.from_json(epochs.workload)
        return run_curriculum(RunContext(config, workload, attempt, signals, engine="single_process"))

    monkeypatch.setattr(PackPlan, "read_pack", spied)
    monkeypatch.setattr(SingleProcessEngine, "train_step", stopped)
    assert not train()
    assert len(trained) == stopped_after
    # At most one step is read ahead.
    assert read == list(range(len(read)))
    assert len(read) <= (stopped_after + 1) * PACKS_PER_STEP
    read.clear()
    run.stop_file.unlink()
    assert train()
    assert read == list(range(stopped_after * PACKS_PER_STEP, EPOCHS * NUM_EXAMPLES))


@pytest.mark.long
def test_inside_a_later_epoch_the_first_is_replayed(repeated: StageFolder) -> None:
    """ms-swift #10050; transformers PR #40691; accelerate #2016, PR #4071, PR #4233.

    Some examples then come again before others have come. Here none does, in this epoch and in the next.
    """
    assert began(repeated)[2] == 6
    assert PACKS_PER_STEP * 6 % NUM_EXAMPLES, "the attempt begins inside an epoch"
    assert (times_fed(repeated).max(axis=1) - times_fed(repeated).min(axis=1) <= 1).all()


@pytest.mark.long
def test_a_checkpoint_at_the_end_of_an_epoch_skips_the_next_one(repeated: StageFolder) -> None:
    """verl #7401: the run ends without an error, and has not trained the rest."""
    assert began(repeated)[3] == 9
    assert (times_fed(repeated)[9 - 1] == 2).all(), "the attempt begins at the end of the second epoch"
    assert (times_fed(repeated)[-1] == EPOCHS).all()


def times_fed(stage: StageFolder) -> IntArray:
    """How often each example was fed after each step: (num_steps, num_examples)."""
    plan, effective = PackPlan.open(stage.packs), read_ledger(stage.ledger).effective
    assert sorted(effective) == list(range(len(effective)))
    fed = [np.concatenate([plan.pack_examples(pack) for pack in effective[step].packs]) for step in sorted(effective)]
    return np.cumsum([np.bincount(examples, minlength=NUM_EXAMPLES) for examples in fed], axis=0)


@pytest.mark.parametrize(("attempt", "size", "before"), [(3, 3, 1), (4, 2, 3)], ids=["larger", "smaller"])
def test_another_number_of_ranks_finds_no_loader_state_of_its_own(
    words: StageFolder, undisturbed: RunFolder, attempt: int, size: int, before: int
) -> None:
    """Automodel #533, PR #2730; torchtitan #409 (a rank that has none goes on with a warning).

    Larger: prime-rl PR #1092 (new ranks take the state of the first). Smaller: torchtitan PR #816, Megatron-Bridge
    PR #5637 (that of the ranks that are gone is lost).
    """
    lines = [json.loads(line) for line in words.ledger.read_text().splitlines()]
    sizes = [{line["world_size"] for line in lines if line["attempt"] == n and "packs" in line} for n in (1, 2, 3, 4)]
    assert (sizes[attempt - 2], sizes[attempt - 1]) == ({before}, {size})
    straight = read_ledger(undisturbed.stage(1, "words").ledger).effective
    for line in lines:
        if line["attempt"] == attempt and "packs" in line:
            # The digest is of tokens, masks and boundaries.
            wanted = straight[line["step"]]
            assert (line["packs"], line["digest"]) == (list(wanted.packs), wanted.digest)


def test_another_number_of_ranks_cannot_read_the_optimizers_state(resumed: RunFolder, undisturbed: RunFolder) -> None:
    """DeepSpeed #2898, #2921, #5405, PR #5475; OpenRLHF PR #891 (only after a conversion of the whole checkpoint).

    Saved by 2, read by 1 and by 3; saved by 3, read by 2: the result is that of 2 alone.
    """
    words = resumed.stage(1, "words")
    assert read_manifest(checkpoint_path(words.checkpoints, 9))["world_size"] == 3
    assert_trained_alike(resumed, undisturbed)


def assert_trained_alike(run: RunFolder, other: RunFolder) -> None:
    for index, stage in enumerate(NUM_STEPS):
        found, wanted = (load_file(r.stage(index, stage).model / "model.safetensors") for r in (run, other))
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            assert float((found[name] - values).norm() / values.norm()) < 1e-5, name
        assert losses(run, index, stage) == pytest.approx(losses(other, index, stage), rel=1e-5)


def test_an_interrupted_save_is_in_the_way_of_the_next_one(words: StageFolder) -> None:
    """Automodel #3254, PR #3261: the first rank then fails, and the others hang; here the next attempt saves it."""
    assert published_steps(words.checkpoints) == [9, NUM_STEPS["words"]]
    assert not list(words.checkpoints.glob(".*partial*"))


def test_the_saved_model_has_parameters_of_size_zero(words: StageFolder) -> None:
    """OpenRLHF #839, #920: a rank has no elements of a parameter that is not gathered, and loading fails."""
    weights = load_file(words.model / "model.safetensors")
    assert min(values.numel() for values in weights.values()) > 0
    found, problems = AutoModelForCausalLM.from_pretrained(words.model, output_loading_info=True)
    assert sum(p.numel() for p in found.parameters()) == sum(values.numel() for values in weights.values())
    assert not problems["missing_keys"]
    assert not problems["mismatched_keys"]


@pytest.mark.long
def test_with_offload_training_goes_well_and_saving_fails(offloaded: RunFolder, undisturbed: RunFolder) -> None:
    """LLaMA-Factory #7532. Here what was saved is also read again, as a rank was killed."""
    words = offloaded.stage(1, "words")
    assert began(words) == {1: 0, 2: 3}
    assert published_steps(words.checkpoints)[-1] == NUM_STEPS["words"]
    assert_trained_alike(offloaded, undisturbed)
