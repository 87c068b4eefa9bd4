"""Answers of whole models to held-out prompts, for people to read. Runs in one process, without ZeRO-3."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig

from sft.atomic_files import write_json
from sft.config import ModelConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.token_store import TokenStore
from sft.model.loading import load_plain_model

MAX_NEW_TOKENS = 64
_MAX_PROMPT_TOKENS = 512


class Prompt(NamedTuple):
    """A held-out example, cut before its first answer."""

    task: str
    prompt_ids: tuple[int, ...]
    reference_ids: tuple[int, ...]


def choose_prompts(store: TokenStore, heldout: PackPlan, num_prompts: int) -> list[Prompt]:
    """The first held-out example of each of `num_prompts` tasks, those with the most examples first."""
    ids = np.sort(np.array(heldout.example_ids))
    task_ids, counts = np.unique(store.task_ids[ids], return_counts=True)
    prompts = []
    for task_id in task_ids[np.argsort(-counts, kind="stable")]:
        for example_id in ids[store.task_ids[ids] == task_id]:
            example = store.example(int(example_id))
            answer = np.flatnonzero(example.loss_mask)
            if len(answer) and answer[0] <= _MAX_PROMPT_TOKENS:
                prompt_ids = tuple(example.input_ids[: answer[0]].tolist())
                prompts.append(Prompt(store.tasks[task_id], prompt_ids, tuple(example.input_ids[answer].tolist())))
                break
    return prompts[:num_prompts]


def write_sample_answers(
    path: Path, model: ModelConfig, before: str, after: str, prompts: Sequence[Prompt], device: str
) -> None:
    """Answer the prompts with the models at `before` and `after`, greedily, and keep both beside the reference.

    Both models stop at the stop tokens of the folder at `after`.
    """
    tokenizer = load_tokenizer(model)
    stop_ids = GenerationConfig.from_pretrained(after).eos_token_id
    answers = [_answer(model, folder, prompts, stop_ids, device) for folder in (before, after)]

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    samples = [
        {
            "task": prompt.task,
            "prompt": str(tokenizer.decode(list(prompt.prompt_ids))),
            "reference": text(prompt.reference_ids),
            "before": text(first),
            "after": text(last),
        }
        for prompt, first, last in zip(prompts, *answers, strict=True)
    ]
    write_json(path, samples)


def _answer(
    model: ModelConfig, folder: str, prompts: Sequence[Prompt], stop_ids: int | list[int] | None, device: str
) -> list[list[int]]:
    loaded: Any = load_plain_model(model, folder, getattr(torch, model.dtype))
    loaded.to(device)
    answers = []
    for prompt in prompts:
        input_ids = torch.tensor([prompt.prompt_ids], device=device)
        output = loaded.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=stop_ids,
            pad_token_id=prompt.reference_ids[-1],
        )
        answers.append(output[0, len(prompt.prompt_ids) :].tolist())
    return answers
