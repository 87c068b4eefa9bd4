"""`sft verify RUN_DIR`: exit code 0 where all is as it says, 1 with the findings, 2 where there is no run."""

import re

import pytest
import yaml

from launcher.cli import main
from sft.config_file import build_config
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.ledger import LedgerEntry, LedgerWriter, digest_of_packs
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload

CONFIG = """
run: {{name: small, dir: {folder}/run}}
model: {{path: {model}}}
data:
  cache_dir: {folder}/cache
  sources: [{{name: lists, path: {prompts}, format: prompt_completion}}]
stages: [{{name: broad, budget: {{steps: 40}}, optimizer: {{lr: 1.0e-4}}}}]
train: {{packs_per_step: 2, pack_len_tokens: 2048}}
"""


@pytest.fixture
def verify(capsys):
    def run(folder):
        code = main(["verify", str(folder)])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def run(tmp_path, small_records, tokenizer_dir):
    """A run that is planned."""
    text = CONFIG.format(folder=tmp_path, model=tokenizer_dir("chatml"), prompts=small_records.prompts)
    config = build_config(yaml.safe_load(text))
    prepare_workload(config)
    return RunFolder(config.run.dir)


def feed(run, first, last, attempt, skipped=()):
    folder = run.stage(0, "broad")
    (store,) = (run.path.parent / "cache" / "tokens").glob("*/manifest.json")
    plan, store = PackPlan.open(folder.packs), TokenStore.open(store.parent)
    run.attempt(attempt).path.mkdir(parents=True, exist_ok=True)
    writer = LedgerWriter(folder.ledger, attempt)
    writer.resume(first)
    for step in range(first, last):
        packs = (2 * step, 2 * step + 1)
        digest = digest_of_packs(plan.read_pack(i, store) for i in packs)
        writer.append(LedgerEntry(step, attempt, 1, packs, digest, step not in skipped))


def test_a_run_under_way_is_exactly_once_so_far_with_counts(verify, run):
    feed(run, 0, 30, 1)
    feed(run, 20, 38, 2, skipped=(21, 33))
    code, out, err = verify(run.path)
    assert (code, err) == (0, "")
    assert re.search(r"broad +│ +38 of 40 so far +│ +76 +│ +[\d,]+ +│ +2 +│ +10 +│ +1 +│ +none", out)
    assert "stage broad: fed, but skipped because not finite: steps 21, 33\n" in out
    text = re.sub(r"\s+", " ", out)
    assert re.search(
        r"So far, every pack was fed exactly once, in its own step\. 1 stage, 38 steps, 76 packs, "
        r"[\d,]+ supervised tokens; \d+ files \([\d.]+ kB\) hashed again; 10 steps rolled back in 1 restart\.",
        text,
    )


def test_what_is_wrong_is_exit_code_1_with_at_most_20_findings_of_a_kind(verify, run):
    feed(run, 0, 3, 1)
    feed(run, 28, 38, 1)
    (run.evaluations / "packs" / "starts.npy").write_bytes(b"")
    code, out, err = verify(run.path)
    assert (code, err) == (1, "")
    assert "plan of what is held out" in out
    assert "starts.npy has 0 bytes" in out
    assert out.count("was never trained") == 20
    assert "steps: 25 wrong" in out
    assert "… and 5 more" in out
    assert "Not verified: 26 findings" in out
    assert "exactly once" not in out


def test_before_the_first_step_nothing_is_wrong(verify, run):
    code, out, err = verify(run.path)
    assert (code, err) == (0, "")
    assert "Nothing was trained yet" in out


def test_another_folder_is_one_message_and_exit_code_2(verify, tmp_path):
    code, out, err = verify(tmp_path)
    assert (code, out) == (2, "")
    assert err == f"{tmp_path} is not the folder of a run: there is no manifest.json of a run in it\n"
