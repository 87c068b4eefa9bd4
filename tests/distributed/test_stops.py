"""The tuned model stops: whoever loads its folder gets the answers that were learned, and no token behind them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft.config import SftConfig
from sft.data.rendering.chat_template import TEMPLATE_DATE
from sft.evaluation.generation import Prompt, write_sample_answers
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from tests.conftest import TEMPLATES, TokenizerDir
from tests.distributed.launch import run_ranks
from tests.model.tiny_checkpoints import write_checkpoint

NOT_TRAINABLE = {"no_answer", "no_stop_token", "upper_case"}
FEW = ["chatml", None]
"""Also a tokenizer without a template, with ChatML's end mark in the vocabulary; among the others is one without it."""
OTHERS = ["gpt2", *sorted({path.stem for path in TEMPLATES.glob("*.jinja")} - NOT_TRAINABLE - {*FEW})]

ANSWERS = {"One?": "amber basin", "Two?": "cedar", "Three?": "delta ember fjord glade"}
MAX_NEW_TOKENS = 40

Jobs = dict[str | None, dict[str, Any]]
"""The config of each tokenizer's job."""


def job(name: str, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """A base model that knows no end of a turn, and three answers to learn by heart."""
    base = write_checkpoint("llama", folder / f"{name}-base")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 639, "temperature": 0.7, "top_p": 0.8}))
    records = folder / "records.jsonl"
    records.write_text("".join(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in ANSWERS.items()))
    return {
        "run": {"name": name, "dir": str(folder / name)},
        "model": {"path": str(base), "tokenizer": str(tokenizer), "dtype": "float32"},
        "data": {
            "sources": [{"name": "answers", "path": str(records)}],
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "holdout": {"share": 0.0},
        },
        "stages": [{"name": "only", "budget": {"steps": 45}, "optimizer": {"lr": 1e-2, "schedule": "constant"}}],
        "train": {"pack_len_tokens": 256, "packs_per_step": 1, "activation_checkpointing": False},
        "checkpoint": {"every_steps": None},
        "logging": {"tensorboard": False},
    }


@pytest.fixture(scope="module")
def jobs(tokenizer_dir: TokenizerDir, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return trained(FEW, tokenizer_dir, tmp_path_factory.mktemp("stops"))


def trained(names: list[Any], tokenizer_dir: TokenizerDir, folder: Path) -> Jobs:
    """The finished job of each template, trained under ZeRO-3."""
    made = {name: job(name or "without", tokenizer_dir(name), folder) for name in names}
    workloads = [prepare_workload(SftConfig.model_validate(content))[0].as_json() for content in made.values()]
    finished = run_ranks(1, "run_jobs", {"jobs": list(zip(made.values(), workloads, strict=True))}, 280)
    assert finished == [True] * len(made)
    return made


def model_of(content: dict[str, Any]) -> Path:
    return RunFolder(Path(content["run"]["dir"])).stage(0, "only").model


def prompt_ids(tokenizer: Any, question: str, answer: str) -> list[int]:
    """The ids before the answer, in the conversation with it: alone, white space at the end may be another token."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    day = {"date_string": TEMPLATE_DATE.strftime("%d %b %Y")}
    prompt, whole = (
        tokenizer.apply_chat_template(given, add_generation_prompt=given is not turns, tokenize=False, **day)
        for given in (turns[:1], turns)
    )
    assert whole.startswith(prompt)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [token for token, (_, end) in pairs if end <= len(prompt)]


@pytest.mark.parametrize("name", FEW)
def test_with_nothing_but_the_folder_the_answer_comes_and_ends(name: str | None, jobs: Jobs) -> None:
    check_that_it_stops(jobs[name])


@pytest.mark.long
def test_so_it_is_with_all_other_templates(tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    assert len(OTHERS) > 5
    for content in trained(OTHERS, tokenizer_dir, tmp_path).values():
        check_that_it_stops(content)


def check_that_it_stops(content: dict[str, Any]) -> None:
    folder = model_of(content)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for question, answer in ANSWERS.items():
        given = torch.tensor([prompt_ids(tokenizer, question, answer)])
        output = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
        )
        new = output[0, given.shape[1] :]
        assert len(new) < MAX_NEW_TOKENS
        written = tokenizer.decode(new, skip_special_tokens=True).strip()
        # A think block that the template writes and the prompt does not have is the model's to write.
        assert written.removeprefix("<think>\n\n</think>\n\n") == answer, folder
        assert int(new[-1]) in model.generation_config.eos_token_id
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id
    config = json.loads((folder / "generation_config.json").read_text())
    assert {key: config[key] for key in ("temperature", "top_p")} == {"temperature": 0.7, "top_p": 0.8}
    assert config["eos_token_id"][0] == 639


def test_sample_answers_end_where_the_folder_says(jobs: Jobs, tmp_path: Path) -> None:
    config = SftConfig.model_validate(jobs["chatml"])
    folder = str(model_of(jobs["chatml"]))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (question, answer), *_ = ANSWERS.items()
    ids = prompt_ids(tokenizer, question, answer)
    # A reference whose end is no stop: one of its words.
    prompt = Prompt("answers", tuple(ids), tuple(tokenizer.encode("amber")))
    write_sample_answers(tmp_path / "samples.json", config.model, config.model.path, folder, [prompt], "cpu")
    (sample,) = json.loads((tmp_path / "samples.json").read_text())
    assert sample["after"] == answer
