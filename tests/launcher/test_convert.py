"""A config of another system becomes one of ours that is planned; what has no equal, or another meaning, is listed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.plan import forecast_job, plan_job
from sft.job_config import JobConfig, load_job
from tests.conftest import SmallRecords

AXOLOTL = """
base_model: {model}
datasets:
  - path: {instructions}
    type: alpaca
  - {{path: json, data_files: {prompts}, ds_type: json, type: {{field_instruction: prompt, field_output: completion}}}}
val_set_size: 0.05
output_dir: ./outputs/out
sequence_len: 256
sample_packing: true
wandb_project: tuning
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 2
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-5
bf16: auto
gradient_checkpointing: true
warmup_ratio: 0.1
evals_per_epoch: 2
saves_per_epoch: 1
weight_decay: 0.01
deepspeed: {folder}/zero3.json
special_tokens:
  pad_token: <|end_of_text|>
"""
LLAMA_FACTORY = """
model_name_or_path: {model}
stage: sft
do_train: true
finetuning_type: full
dataset: words,next
dataset_dir: {folder}
template: qwen
cutoff_len: 256
max_samples: 100
output_dir: saves/full
logging_steps: 10
save_steps: 500
report_to: none
per_device_train_batch_size: 8
gradient_accumulation_steps: 4
learning_rate: 1.0e-5
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_steps: 5
bf16: true
val_size: 0.1
"""
TRL = """
model_name_or_path: {model}
dataset_name: {prompts}
max_length: 256
learning_rate: 3.0e-4
use_peft: true
lora_r: 32
max_steps: 20
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
eos_token: <|im_end|>
num_processes: 2
packing: true
neftune_noise_alpha: 5
output_dir: out
"""
Convert = Callable[..., tuple[JobConfig, str]]


@pytest.fixture
def convert(
    tmp_path: Path, tiny_model_dir: Path, small_records: SmallRecords, capsys: pytest.CaptureFixture[str]
) -> Convert:
    """Converts the text of a config; returns the job, and what was said."""
    listed = {
        "words": {"file_name": str(small_records.instructions)},
        "next": {"file_name": str(small_records.prompts), "columns": {"prompt": "prompt", "response": "completion"}},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(listed))
    zero = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    (tmp_path / "zero3.json").write_text(json.dumps(zero))
    places = {"folder": tmp_path, "model": tiny_model_dir, **small_records._asdict()}

    def convert(text: str, *words: str) -> tuple[JobConfig, str]:
        (tmp_path / "theirs.yaml").write_text(text.format_map(places))
        assert main(["convert", str(tmp_path / "theirs.yaml"), "-o", str(tmp_path / "ours.yaml"), *words]) == 0
        return load_job(tmp_path / "ours.yaml"), capsys.readouterr().err

    return convert


@pytest.mark.parametrize("text", [AXOLOTL, LLAMA_FACTORY, TRL])
def test_what_it_makes_is_planned(convert: Convert, text: str) -> None:
    job, _ = convert(text)
    assert plan_job(job).stages[0].empty_packs_per_step == 0
    assert forecast_job(job).model is not None


def test_axolotl(convert: Convert) -> None:
    job, said = convert(AXOLOTL, "--gpus", "4")
    config = job.sft
    stage = config.stages[0]
    assert [(s.name, s.format) for s in config.data.sources] == [
        ("instructions", "instruction"), ("prompts", "prompt_completion"),
    ]  # fmt: skip
    assert (config.data.max_len_tokens, config.train.pack_len_tokens, config.data.overlong) == (256, 256, "drop")
    assert (config.train.packs_per_step, config.train.packs_per_micro_batch) == (2 * 4 * 4, 2), "packed rows are packs"
    assert stage.budget.epochs == 2
    assert (stage.optimizer.lr, stage.optimizer.warmup_ratio, stage.optimizer.betas) == (2e-5, 0.1, (0.9, 0.999))
    assert (config.checkpoint.every_steps, config.checkpoint.every_epochs) == (None, 1)
    assert config.evaluate.every_epochs == 0.5
    assert config.deepspeed.offload_optimizer == "cpu"
    assert config.logging.wandb is not None
    assert (job.cluster.workers, job.cluster.gpus_per_worker) == (4, 1)
    for words in ("optimizer: paged_adamw_8bit", "special_tokens", "stage 2 there", "type alpaca writes"):
        assert words in said


def test_llama_factory(convert: Convert) -> None:
    job, said = convert(LLAMA_FACTORY)
    config = job.sft
    stage = config.stages[0]
    assert [(s.name, s.format, s.max_records) for s in config.data.sources] == [
        ("instructions", "instruction", 100), ("prompts", "prompt_completion", 100),
    ]  # fmt: skip
    assert (stage.optimizer.warmup_steps, stage.optimizer.warmup_ratio) == (5, 0.0)
    assert config.data.holdout.share == 0.1
    assert config.checkpoint.every_steps == 500
    assert not config.logging.tensorboard
    # Its rows are examples: as many packs as hold their tokens.
    assert 1 <= config.train.packs_per_step < 32
    assert "template: qwen" in said


def test_trl(convert: Convert) -> None:
    job, said = convert(TRL)
    config = job.sft
    assert config.stages[0].budget.steps == 20
    assert config.stages[0].optimizer.lr == 3e-5, "a tenth of the rate for adapters, without 2.9999999999999997e-05"
    assert (job.cluster.workers, config.train.packs_per_step) == (2, 4 * 2 * 2)
    assert config.model.turn_end == "<|im_end|>"
    for words in ("use_peft: True: all parameters are trained", "neftune_noise_alpha", "over the answers only"):
        assert words in said


def test_defaults_are_those_of_the_other_system(convert: Convert) -> None:
    job, _ = convert("model_name_or_path: m\ndataset_name: {prompts}\n", "--from", "trl")
    stage = job.sft.stages[0]
    assert (stage.budget.epochs, stage.optimizer.lr, stage.optimizer.schedule) == (3, 2e-5, "linear")
    assert job.sft.data.max_len_tokens == 1024
    assert job.sft.data.holdout.share == 0


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ({"base_model": "m", "rl": "dpo", "micro_batch_size": 1, "datasets": []}, [], "only instruction tuning"),
        ({"base_model": "m", "micro_batch_size": 1, "sequence_len": 8}, [], "names no data"),
        ({"a": 1}, [], "few of its keys are known"),
        ({"model_name_or_path": "m", "seed": 1, "learning_rate": 1e-5}, [], "--from"),
    ],
)
def test_what_cannot_be_converted_is_said(
    tmp_path: Path, content: dict[str, Any], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.yaml").write_text(json.dumps(content))
    assert main(["convert", str(tmp_path / "theirs.yaml"), *words]) == 2
    assert said in capsys.readouterr().err


def test_without_a_file_to_write_it_is_printed(
    tmp_path: Path, small_records: SmallRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.yaml").write_text(
        f"model_name_or_path: m\ndataset_name: {small_records.prompts}\nmax_length: 9\n"
    )
    assert main(["convert", str(tmp_path / "theirs.yaml")]) == 0
    (tmp_path / "ours.yaml").write_text(capsys.readouterr().out)
    assert load_job(tmp_path / "ours.yaml").sft.data.max_len_tokens == 9
