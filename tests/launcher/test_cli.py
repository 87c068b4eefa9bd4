"""The command `sft`: one answer on stdout, or one message on stderr and exit code 2, never a traceback."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import launcher.verbs
from launcher.cli import main
from launcher.command_line import build_parser, parse
from launcher.plan import plan_job
from launcher.verbs import VERBS, find_verb
from sft import __version__
from sft.config_arguments import overrides_of
from sft.job_config import load_job

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
run: {name: small, dir: runs/small}
model: {path: owner/model}
data: {sources: [{name: only, path: owner/data, format: messages}]}
stages:
  - {name: broad, budget: {epochs: 2}, optimizer: {lr: 1.0e-5}}
  - {name: narrow, budget: {supervised_tokens: 1500000}, optimizer: {lr: 1.0e-5}, pack_len_tokens: 4096}
train: {packs_per_step: 10, packs_per_micro_batch: 2}
cluster: {workers: [2, 4], gpus_per_worker: 1, cpus_per_worker: 3}
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def sft(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse ends the process itself
            code = int(error.code or 0)
        return Answer(code, *capsys.readouterr())

    return run


def test_a_former_name_of_a_field_is_read_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(CONFIG.replace("packs_per_micro_batch", "micro_packs"))
    assert main(["plan", str(path), "--offline", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert f"{path}: train.micro_packs is called `packs_per_micro_batch` now" in printed.err


def test_the_plan_is_printed(sft, config: Path) -> None:
    code, out, err = sft("plan", config)
    assert (code, err) == (0, "")
    for words in ("2 to 4 workers", "12 CPUs", "4 GPUs", "broad", "2.0 epochs", "1,500,000", "20,480", "40,960"):
        assert words in out


def test_the_plan_as_json_is_one_object_on_stdout(sft, config: Path) -> None:
    code, out, err = sft("plan", config, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    found = json.loads(out)
    asked = ("name", "budget", "pack_len_tokens", "slots_per_step", "micro_batches_per_step", "empty_packs_per_step")
    found["stages"] = [{key: stage[key] for key in asked} for stage in found["stages"]]
    requested = ("min_workers", "max_workers", "cpus", "gpus", "packs_per_step", "stages")
    assert {key: found.pop(key) for key in requested} == {
        "min_workers": 2,
        "max_workers": 4,
        "cpus": 12,
        "gpus": 4,
        "packs_per_step": 10,
        "stages": [
            {
                "name": "broad",
                "budget": "2.0 epochs",
                "pack_len_tokens": 2048,
                "slots_per_step": 20480,
                "micro_batches_per_step": 2,
                "empty_packs_per_step": 6,
            },
            {
                "name": "narrow",
                "budget": "1,500,000 supervised tokens",
                "pack_len_tokens": 4096,
                "slots_per_step": 40960,
                "micro_batches_per_step": 2,
                "empty_packs_per_step": 6,
            },
        ],
    }
    # What it needs: tests/launcher/test_plan.py.
    assert set(found) == {"model", "workers", "storage", "failures", "findings"}


def test_the_plan_touches_nothing(sft, config: Path, tmp_path: Path) -> None:
    sft("plan", config)
    assert list(tmp_path.iterdir()) == [config]


def test_overrides_reach_the_plan(sft, config: Path) -> None:
    overrides = ["cluster.workers=5", "cluster.gpus_per_worker=0", "stages.narrow.pack_len_tokens=8192"]
    plan = json.loads(sft("plan", "--json", config, *overrides).out)
    assert (plan["min_workers"], plan["max_workers"], plan["cpus"], plan["gpus"]) == (5, 5, 15, 0)
    assert [stage["pack_len_tokens"] for stage in plan["stages"]] == [2048, 8192]
    assert [stage["empty_packs_per_step"] for stage in plan["stages"]] == [0, 0]


def test_without_a_cluster_section_one_worker_trains(config: Path) -> None:
    config.write_text(CONFIG.partition("cluster:")[0])
    plan = plan_job(load_job(config))
    assert (plan.min_workers, plan.max_workers, plan.cpus, plan.gpus) == (1, 1, 1, 0)


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_wrong_config_is_a_message_with_all_that_is_wrong(sft, config: Path, tmp_path: Path, verb: str) -> None:
    code, out, err = sft(verb, config, "train.micro_pack=1", "cluster.workers=[4, 2]", "stages.broad.optimizer.lr=x")
    assert (code, out) == (2, "")
    assert err.startswith(f"{config}: 3 problems\n")
    for path in ("train.micro_pack:", "stages.0.optimizer.lr:", "cluster.workers:"):
        assert path in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("assignment", "path", "rule", "way_out"),
    [
        ("cluster.workers=0", "cluster.workers: 0", "must be greater than 0", "correct the value"),
        (
            "cluster.workers=many",
            "cluster.workers: 'many'",
            "must be a whole number",
            "write a whole number, such as 8",
        ),
        ("workers=8", "workers: 8", "is not a known key", "here it is `cluster.workers`"),
        ("cluster=8", "cluster: 8", "must be a mapping of fields", "such as {workers: 8}, or"),
        ("cluster.workers=[8]", "cluster.workers: [8]", "item 2 is missing", "make the list longer"),
        ("cluster.workers=[0, 3]", "cluster.workers.0: 0", "must be greater than 0", "correct the value"),
        ("cluster.workers=[4, 2]", "cluster.workers: [4, 2]", "larger than the most", "swap the two"),
        ("cluster.gpus_per_worker=0.5", "cluster.gpus_per_worker: 0.5", "one GPU, or none", "choose 0 or 1"),
        (
            "train.engine=plain",
            "train.engine: 'plain'",
            "for one worker, but there are up to 4",
            "set auto, or cluster",
        ),
        ("cluster.gpu=h100", "cluster.gpu: 'h100'", "must be a10, a100", "choose one of h100-80gb, h100-pcie"),
        ("cluster.worker=1", "cluster.worker: 1", "not a known key", "did you mean `workers`?"),
        ("clustre.workers=1", "clustre: {'workers': 1}", "not a known key", "did you mean `cluster`?"),
        ("cluster=", "cluster: None", "must be a mapping of fields", "cpus_per_worker"),
        ("cluster.max_failures=-2", "cluster.max_failures: -2", "greater than or equal to -1", "correct the value"),
    ],
)
def test_a_mistake_about_the_cluster_is_one_problem(
    sft, config: Path, assignment: str, path: str, rule: str, way_out: str
) -> None:
    code, _, err = sft("plan", config, assignment)
    assert code == 2
    first, *lines = err.splitlines()
    assert first == f"{config}: 1 problem"
    assert lines[0] == f"  {path}"
    assert rule in lines[1]
    assert way_out in lines[2]
    assert len(lines) == 3


def test_what_needs_a_gpu_or_one_worker_is_refused_beside_all_other_mistakes(sft, config: Path) -> None:
    of_gpus = ["model.kernels=liger", "train.flash_attention=3"]
    on_cpus = ["cluster.gpus_per_worker=0", "cluster.workers=2"]
    wrong = ["train.engine=plain", "train.packs_per_micro_batch=0"]
    code, _, err = sft("plan", config, *of_gpus, *on_cpus, *wrong)
    assert code == 2
    assert err.startswith(f"{config}: 4 problems\n")
    assert "model.kernels: 'liger'\n      needs a GPU, but cluster.gpus_per_worker is 0" in err
    assert "train.flash_attention: 3\n      needs a GPU, but cluster.gpus_per_worker is 0" in err
    assert "train.engine: 'plain'\n      the plain engine is for one worker, but there are 2 (cluster.workers)" in err
    assert (
        sft("plan", config, *of_gpus).code == sft("plan", config, "train.engine=plain", "cluster.workers=1").code == 0
    )


def test_rules_of_the_cluster_are_checked_beside_a_misspelt_key(sft, config: Path) -> None:
    err = sft("plan", config, "cluster.worker=1", "cluster.gpus_per_worker=2").err
    assert err.startswith(f"{config}: 2 problems\n")


def test_a_file_that_is_not_there_is_a_message(sft, tmp_path: Path) -> None:
    code, out, err = sft("plan", tmp_path / "none.yaml")
    assert (code, out) == (2, "")
    assert err == f"{tmp_path / 'none.yaml'}: the config cannot be read: No such file or directory\n"


@pytest.mark.parametrize("arguments", [("plan",), ("plane", "c.yaml"), ("plan", "c.yaml", "--jsom")])
def test_a_wrong_command_line_is_exit_code_2_with_the_usage(sft, arguments: tuple[str, ...]) -> None:
    code, out, err = sft(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: sft")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train",), "usage: sft train [-h] [--unreviewed] [--until STAGE] CONFIG [FIELD=VALUE ...]"),
        (("train",), "the following arguments are required: CONFIG\n"),
        (("submit", "slurm"), "the following arguments are required: CONFIG\n"),
        (("train", "c.yaml", "--unitl=a"), "usage: sft train"),
        (("verify",), "the following arguments are required: RUN_DIR\n"),
        (("plane",), "there is no verb 'plane'; did you mean plan? There are init, convert, review, plan, "),
        (("submit", "slrm"), "there is no place 'slrm'; did you mean slurm? There are slurm, ray."),
        (("train", "c.yaml", "--unitl=a"), "there is no option --unitl; did you mean --until?"),
        (("train", "c.yaml", "--run.dir=a"), "--run.dir: a field is given without dashes, such as run.dir=a\n"),
        (("train", "c.yaml", "--run.dir", "a"), "--run.dir: a field is given without dashes, such as run.dir=VALUE\n"),
        (("status", "runs/a", "runs/b"), "'runs/b' is one argument too many"),
    ],
)
def test_what_is_missing_or_unknown_is_said_with_the_usage_of_the_verb(
    sft, arguments: tuple[str, ...], said: str
) -> None:
    assert said in sft(*arguments).err


def test_alone_the_command_lists_its_verbs_and_a_group_its_own(sft) -> None:
    code, out, err = sft()
    assert (code, out) == (2, "")
    assert [verb for verb in VERBS if f"\n  {verb} " not in err] == []
    assert sft("--help").out == err
    code, _, err = sft("submit")
    assert code == 2
    assert "submit ray" in err
    assert "submit slurm" in err
    assert "verify" not in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_it_does_its_exit_codes_and_examples_that_can_be_parsed(sft, verb: str) -> None:
    code, out, err = sft(*verb.split(), "--help")
    assert (code, err) == (0, "")
    for words in (f"usage: sft {verb} [-h]", "Exit codes: 0 done, 1 failed, 2 wrong config or input"):
        assert words in out
    assert "--expect-source" not in out, "it is for programs"
    examples = find_verb(verb).EXAMPLES.splitlines()
    for example in examples:
        before, called, words = re.split("[#|>]", example)[0].partition(f"sft {verb} ")
        assert called, example
        assert before in ("", "RAY_ADDRESS=HEAD_NODE:6379 ")
        options = parse(build_parser(), [*verb.split(), *shlex.split(words)])
        assert options.run is find_verb(verb).run
        assert "config" not in options or overrides_of(options) == options.overrides
        assert example in out


def test_every_module_of_the_verbs_is_one() -> None:
    modules = {path.stem for path in Path(launcher.verbs.__file__).parent.glob("*.py")} - {"__init__"}
    assert {find_verb(verb).__name__.rpartition(".")[2] for verb in VERBS} == modules


def test_the_version_is_said(sft) -> None:
    assert sft("--version") == sft("-V") == sft("version") == Answer(0, f"sft {__version__}\n", "")


def test_help_is_also_a_word(sft) -> None:
    assert sft("help") == sft("-h")
    assert sft("help", "train") == sft("train", "-h")
    assert sft("help", "submit", "ray") == sft("submit", "ray", "-h")


@pytest.mark.parametrize("module", ["sft", "launcher", "launcher.cli"])
def test_the_command_is_also_a_module(module: str) -> None:
    command = [sys.executable, "-m", module, "--version"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"sft {__version__}\n", "")


def test_overrides_of_one_call_are_none_of_the_next(sft, config: Path) -> None:
    assert json.loads(sft("plan", config, "--json", "cluster.workers=5").out)["max_workers"] == 5
    assert json.loads(sft("plan", config, "--json").out)["max_workers"] == 4


def test_planning_imports_neither_torch_nor_ray(config: Path) -> None:
    heavy = ("torch", "ray", "deepspeed", "transformers", "datasets", "sft.scoring.registry")
    code = (
        "import sys, launcher.cli\n"
        "assert 'pydantic' not in sys.modules, 'for --help nothing slow is imported'\n"
        f"assert launcher.cli.main(['plan', {str(config)!r}]) == 0\n"
        f"assert not [name for name in {heavy} if name in sys.modules], sorted(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert "broad" in run.stdout


def test_training_says_its_first_word_before_anything_slow_is_imported(config: Path, tmp_path: Path) -> None:
    heavy = ("torch", "ray", "deepspeed", "transformers", "datasets", "matplotlib")
    code = f"""
import os, sys, time
from launcher.cli import main

class FirstWord:
    def write(self, text):
        seconds, found = time.process_time(), [name for name in {heavy} if name in sys.modules]
        os.write(1, f"{{text.strip()}}|{{found}}|{{seconds < 2}}".encode())
        os._exit(0)

    isatty = flush = lambda self: False

sys.stdout = FirstWord()
main(["train", {str(config)!r}, "run.dir={tmp_path}/run"])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == (f"run small, in {tmp_path}/run|[]|True", "")


def test_a_working_folder_that_is_gone_is_said(sft, config: Path, tmp_path: Path, monkeypatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for verb in ("plan", "prepare"):
        code, out, err = sft(verb, config)
        assert (code, out) == (2, "")
        assert err.startswith("The working folder is gone")


@pytest.mark.parametrize("override", ["run.dir=~nobody-of-here/x", "data.cache_dir=~/x", "model.path=~nobody-of-here"])
def test_a_home_that_is_not_known_is_said_with_the_path(sft, config: Path, override: str, monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    code, _out, err = sft("plan", config, "--offline", "data.cache_dir=cache", override)
    assert code == 2
    assert "begins with the home folder of a user, which is not known here" in err
    assert override.partition("=")[0] in err


@pytest.mark.parametrize("seconds", ["1e300", "1e9", "1e-9", ".inf"])
def test_a_timeout_that_torch_cannot_take_or_that_always_strikes_is_refused(sft, config: Path, seconds: str) -> None:
    code, _out, err = sft("plan", config, "--offline", f"cluster.hang_timeout_seconds={seconds}")
    assert code == 2
    assert "cluster.hang_timeout_seconds" in err
