"""What the README says is so: its config is planned, its verbs are the program's, its sizes are those of `sft plan`."""

import json
import re
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.plan import forecast_job
from launcher.verbs import VERBS, find_verb
from sft.job_config import load_job
from tests.sizing.models import LLAMA_8B, LLAMA_70B, QWEN_0_5B, SMOLLM2_135M

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = {"Llama 3 8B": LLAMA_8B, "Llama 3 70B": LLAMA_70B, "SmolLM2-135M": SMOLLM2_135M, "Qwen2.5-0.5B": QWEN_0_5B}


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = re.split(r"^## ", README, flags=re.M)[1:]
    [text] = [text for text in section if text.startswith(f"{heading}\n")]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


def test_its_config_has_15_lines_and_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [config] = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.M | re.S)
    assert len(config.splitlines()) <= 15
    (tmp_path / "my.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "my.yaml", "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 1


def test_whole_configs_in_the_docs_are_read(tmp_path: Path) -> None:
    num_configs = 0
    for page in sorted((ROOT / "docs").glob("*.md")):
        for config in re.findall(r"^```yaml\n(run:.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
            if "\nstages:" in config:
                (tmp_path / "whole.yaml").write_text(config)
                assert load_job(tmp_path / "whole.yaml").sft.stages, page.name
                num_configs += 1
    assert num_configs > 0


def test_it_lists_the_verbs_in_their_order() -> None:
    rows = table("The commands")
    assert [summary for _, summary in rows] == [find_verb(verb).SUMMARY for verb in VERBS]
    for (command, _), verb in zip(rows, VERBS, strict=True):
        assert f"{command.strip('`')} ".startswith(f"sft {verb} ")


def test_its_sizes_are_those_of_the_plan(tmp_path: Path) -> None:
    config, num_rows = "", 0
    for name, model, _, _, size in table("Hardware"):
        words = re.findall("`([^`]+)`", name)
        config = next((word for word in words if word.endswith(".yaml")), config)
        if size == "–":
            continue
        (tmp_path / "config.json").write_text(json.dumps(MODELS[model]))
        overrides = [word for word in words if "=" in word]
        overrides += [f"model.path={tmp_path}", "cluster.gpu=h100-80gb", "train.activation_checkpointing=all"]
        job = load_job(ROOT / config, overrides)
        assert f"{forecast_job(job).workers[-1].num_bytes / 1024**3:.1f}" == size, name
        num_rows += 1
    assert num_rows == 5


def test_the_targets_that_pages_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {word for line in re.findall(r"^    make ([^#\n]*)", text, flags=re.M) for word in line.split()}
    assert {"quickstart", "test"} <= {word for word in named if re.fullmatch("[a-z-]+", word)} <= targets
