"""`sft plan` on a machine with neither GPU nor torch: what a run needs, or what is missing to say it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from launcher.cli import main
from launcher.plan import layout_note
from sft.sizing.forecast import Forecast
from tests.forked_ranks import warm_command
from tests.sizing.models import LLAMA_8B

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "llama3_8b_1node.yaml"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder: what a plan has found out of a model is kept there for the others."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".cache" / "sft").mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(scope="session")
def llama(home: Path) -> str:
    """The override that names a folder with nothing but a config.json."""
    (home / "llama").mkdir()
    (home / "llama" / "config.json").write_text(json.dumps(LLAMA_8B))
    return f"model.path={home / 'llama'}"


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", str(CONFIG), "--json", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def test_everything_is_told_of_a_run(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["cluster.gpu=h100-80gb", "cluster.price_per_gpu_hour=2.5", "stages.broad.budget={steps: 4000}"]
    overrides.append("train.activation_checkpointing=all")
    found = plan(capsys, llama, *overrides)
    assert found["model"]["num_parameters"] == 8_030_261_248
    [stage] = found["stages"]
    assert (stage["num_steps"], stage["num_packs"], stage["slots_per_step"]) == (4000, 128_000, 131_072)
    assert stage["cost"] == pytest.approx(stage["seconds"] / 3600 * 8 * 2.5)
    # 8 B parameters, 131,072 tokens a step: 6 operations each, on 8 GPUs of 989 teraflops at 40 %.
    assert stage["step_seconds"] == pytest.approx(6 * 8.03e9 * 131_072 / (8 * 989.4e12 * 0.4), rel=0.1)
    [worker] = found["workers"]
    assert worker["fits"] is True
    assert worker["memory_total"] == sum(
        sum(part.values()) if name == "states" else part for name, part in worker["memory"].items() if name != "when"
    )
    assert worker["largest_packs_per_micro_batch"] == 4
    assert found["storage"]["checkpoint"] == 12 * 8_030_261_248


def test_the_table_says_the_same(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    left_open = ["train.packs_per_micro_batch=auto", "train.activation_checkpointing=auto"]
    assert main(["plan", str(CONFIG), llama, "cluster.gpu=h100-80gb", *left_open]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    words_of_it = (
        "8.03B parameters",
        "optimizer, its part",
        "activations",
        "fits with 8 workers: micro-batches of 2 packs (8,192 tokens); no layer computes",
        "packs_per_micro_batch: 3",
        "taken",
        "8 workers are assumed to be on 1 node (slurm",
    )
    for words in words_of_it:
        assert words in out
    assert max(map(len, out.splitlines())) <= 110
    apart = [llama, "cluster.gpu=h100-80gb", "slurm.workers_per_node=1", *left_open]
    assert plan(capsys, *apart)["stages"][0]["packs_per_micro_batch"] == 4, "more is sent between nodes"


def test_what_stands_in_place_of_auto_is_said_where_no_gpu_is_given(
    llama: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left_open = ["train.packs_per_micro_batch=auto", "train.activation_checkpointing=auto"]
    counted_as = "train.packs_per_micro_batch=1 train.activation_checkpointing=all"
    assert any(counted_as in finding for finding in plan(capsys, llama, *left_open)["findings"])
    for nothing_is_open in ("cluster.gpu=h100-80gb", "train.activation_checkpointing=all", "cluster.gpus_per_worker=0"):
        assert not any("`auto`" in finding for finding in plan(capsys, llama, nothing_is_open)["findings"])


def test_what_does_not_fit_is_said_with_what_changes_it(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = [llama, "cluster.gpu=l4", "train.activation_checkpointing=false", "train.packs_per_step=64"]
    assert main(["plan", str(CONFIG), *small]) == 0
    out = capsys.readouterr().out
    assert "does not fit with 8 workers" in out
    changes = plan(capsys, *small)["workers"][0]["changes"]
    assert changes[0]["setting"] == "train.activation_checkpointing=all"
    for setting in " ".join(change["setting"] for change in changes).split():
        assert setting in out
    assert any(change["num_bytes"] <= 22 * 1024**3 for change in changes)


def test_an_elastic_job_is_held_against_its_fewest_workers_too(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = ["cluster.workers=[2, 8]", "slurm.workers_per_node=2"]
    found = plan(capsys, llama, *nodes, "cluster.gpu=a100-80gb")["workers"]
    assert [worker["num_workers"] for worker in found] == [2, 8]
    assert found[0]["num_bytes"] > found[1]["num_bytes"]


def test_a_model_that_is_not_here_leaves_the_rest_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys)
    assert (found["model"], found["workers"], found["storage"]) == (None, [], None)
    assert found["stages"][0]["slots_per_step"] == 131_072
    assert any("hf download meta-llama/Meta-Llama-3-8B config.json" in finding for finding in found["findings"])


def test_a_model_that_is_not_here_is_one_note(capsys: pytest.CaptureFixture[str]) -> None:
    findings = plan(capsys, "--offline")["findings"]
    assert ["config.json" in finding for finding in findings] == [True, False]


def test_settings_that_do_nothing_are_named(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    def idle(*overrides: str) -> list[str]:
        return [finding for finding in plan(capsys, llama, *overrides)["findings"] if "does nothing" in finding]

    of_zero3, offload = "deepspeed.gather=module", "train.offload_activations=cpu"
    each_alone = "slurm.workers_per_node=1"
    one_worker = "cluster.workers=1", each_alone
    assert idle() == idle(of_zero3, offload) == []
    assert "because the engine is the plain one" in idle(*one_worker, of_zero3)[0]
    assert idle("cluster.workers=[1, 2]", each_alone, of_zero3) == idle(*one_worker) == []
    assert "no layer recomputes its activations" in idle(offload, "train.activation_checkpointing=none")[0]
    assert "because the workers have no GPU" in idle(offload, "cluster.gpus_per_worker=0")[0]


def test_an_unknown_family_needs_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {**LLAMA_8B, "model_type": "unheard-of", "hidden_size": 64, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = plan(capsys, f"model.path={tmp_path}")
    assert found["model"] is None
    assert any("unheard-of" in finding for finding in found["findings"])
    tensors = {"model.embed_tokens.weight": (100, 64), "model.layers.0.x": (7,)}
    save_file({name: np.zeros(size, np.float32) for name, size in tensors.items()}, tmp_path / "model.safetensors")
    found = plan(capsys, f"model.path={tmp_path / 'config.json'}")
    assert found["model"]["num_parameters"] == 6407
    assert any("counted in its files" in finding for finding in found["findings"])


def test_workers_without_gpus_are_processes(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    [worker] = plan(capsys, llama, "cluster.gpus_per_worker=0")["workers"]
    assert worker["capacity"] is None
    assert worker["host"]["step"] == worker["memory_total"]
    assert worker["num_bytes"] > worker["memory_total"]


def test_the_config_of_a_model_on_the_hub_is_found_in_the_local_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--meta-llama--Meta-Llama-3-8B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA_8B))
    refs = tmp_path / "models--meta-llama--Meta-Llama-3-8B" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    heavy = ("torch", "ray", "deepspeed", "transformers", "datasets")
    code = (
        "import sys, launcher.cli, launcher.layout_check\n"
        f"launcher.layout_check.own_module = lambda name: {warm_command('sft.model.first_look')}\n"
        f"assert launcher.cli.main(['plan', {str(CONFIG)!r}, '--json']) == 0\n"
        f"assert not [name for name in {heavy} if name in sys.modules], sorted(sys.modules)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["model"]["num_parameters"] == 8_030_261_248


@pytest.mark.parametrize(
    ("override", "rule"), [("cluster.gpu=h100", "h100-80gb"), ("cluster.expected_mfu=40", "less than or equal to 1")]
)
def test_a_wrong_kind_is_a_message(override: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(CONFIG), override]) == 2
    assert rule in capsys.readouterr().err


def test_a_model_that_cannot_be_trained_is_refused_without_torch_in_this_process(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for _ in range(2):
        assert main(["plan", str(CONFIG), f"model.path={tmp_path}", "data.max_len_tokens=512"]) == 2
        err = capsys.readouterr().err
        assert "bert cannot be trained. Packed: " in err
        assert "it looks ahead" in err
    assert list((home / ".cache" / "sft" / "layouts").glob("*.json")), "it is tried once"


def test_the_plan_says_how_examples_are_laid(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(capsys, llama)["findings"][-1] == "layout: packed"


def test_what_failures_cost_is_told_in_plain_words(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = ["cluster.gpu=h100-80gb", "cluster.workers=32", "slurm.workers_per_node=8", "cluster.node_mtbf_hours=500"]
    stage = "stages.broad.budget={steps: 4000}"
    assert any("storage_gb_per_second is not given" in finding for finding in plan(capsys, llama, *known)["findings"])
    known += [stage, "cluster.storage_gb_per_second=2", "cluster.network_gb_per_second=25"]
    found = plan(capsys, llama, *known)
    assert any("32 workers are assumed to be on 4 nodes" in finding for finding in found["findings"])
    best = next(interval for interval in found["stages"][0]["intervals"] if interval["name"] == "best")
    assert main(["plan", str(CONFIG), llama, *known]) == 0
    out = capsys.readouterr().out
    assert "failures: one every 5 d 5:00:00" in out
    assert f"{best['steps']:,} steps" in out
    assert f"{best['shares']['training']:.2%}" in out
    words = " ".join(out.split())
    assert "s with hpZ" in words
    assert "ZeRO-3 with 32 workers, in elements: gradients are reduced by 100M; parameters are gathered " in words
    assert max(map(len, out.splitlines())) <= 110


def test_a_reason_is_a_part_of_the_note_on_the_layout() -> None:
    note = layout_note({"layout": "one_example", "reason": "it leaks."}, Forecast(None, (), (), None, None, ()))
    assert note == "layout: one example a row, because it leaks; what it costs is known after `sft prepare`"
