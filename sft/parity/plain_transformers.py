"""`python plain_transformers.py TASK RESULT`: what transformers alone makes of a folder. It imports nothing of sft.

This is what somebody writes who gets the folder and knows nothing else: the tokenizer and the model by their Auto
classes, the chat template of the folder, `generate` with the folder's own generation config. TASK and RESULT are files
of JSON.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import chat_template_utils

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beams": (None, 1),
    "guidance_scale": (None, 1.0),
    "bad_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "sequence_bias": (None, {}),
}
"""Settings that change which tokens are written without any sampling, and their values that change nothing."""
_NUM_BEST = 2


def main(task_path: str, result_path: str) -> None:
    """Do the task."""
    with open(task_path, encoding="utf-8") as file:
        task = json.load(file)
    folder = task["folder"]
    options = {"trust_remote_code": True} if task["trust_remote_code"] else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    config = AutoConfig.from_pretrained(folder, **options)
    model = model_class(config, options).from_pretrained(folder, dtype="auto", **options).to(task["device"]).eval()
    own = model.generation_config
    result: dict[str, Any] = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "eos_token_id": own.eos_token_id,
        "pad_token_id": own.pad_token_id,
        "shaping": {
            name: getattr(own, name, None) for name in NEUTRAL if getattr(own, name, None) not in NEUTRAL[name]
        },
        "cases": [],
    }
    neutral = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    with torch.inference_mode():
        for case in task["cases"]:
            found = prompt_of(case, tokenizer, task["date"]) if case["messages"] else {}
            found["log_probs"] = log_probs(model, case["ids"], case["start"])
            found["answer"], found["best"] = answer(model, case)
            if result["shaping"]:
                found["own_answer"], model.generation_config = found["answer"], neutral
                found["answer"], found["best"] = answer(model, case)
                model.generation_config = own
            result["cases"].append(found)
    result["foreign"] = sorted(name for name in sys.modules if name.partition(".")[0] in ("sft", "launcher"))
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file, default=str)


def model_class(config: Any, options: dict[str, Any]) -> Any:
    """The class that the folder names, as servers take it."""
    named = (getattr(config, "architectures", None) or [""])[0]
    return AutoModelForCausalLM if options else getattr(transformers, named, AutoModelForCausalLM)


def prompt_of(case: dict[str, Any], tokenizer: Any, date: str) -> dict[str, Any]:
    """The prompt's ids today, and on the day of the training; or the error."""
    told = {"tools": case["tools"] or None, "add_generation_prompt": True, "tokenize": True, "return_dict": True}
    try:
        ids = tokenizer.apply_chat_template(case["messages"], **told)["input_ids"]
        with today(date):
            dated = tokenizer.apply_chat_template(case["messages"], **told)["input_ids"]
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"[:500]}
    return {"prompt_ids": list(ids), "dated_prompt_ids": list(dated)}


@contextmanager
def today(date: str) -> Iterator[None]:
    """While this is open, templates are told that it is this day."""

    class Day(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Day":
            return cls.fromisoformat(date)

    module: Any = chat_template_utils
    theirs, module.datetime = module.datetime, Day
    try:
        yield
    finally:
        module.datetime = theirs


def log_probs(model: Any, ids: list[int], start: int) -> list[float]:
    """That of each token from `start` on, given those before it."""
    row = torch.tensor([ids], device=model.device)
    logits = model(input_ids=row, use_cache=False).logits[0, start - 1 : -1].float()
    found: list[float] = logits.log_softmax(-1).gather(-1, row[0, start:, None])[:, 0].tolist()
    return found


def answer(model: Any, case: dict[str, Any]) -> tuple[list[int], list[list[Any]]]:
    """The tokens that are written without sampling, and the most probable two at each place with their log-probs."""
    row = torch.tensor([case["prompt_ids"]], device=model.device)
    output = model.generate(
        row,
        attention_mask=torch.ones_like(row),
        do_sample=False,
        max_new_tokens=case["max_new_tokens"],
        return_dict_in_generate=True,
        output_logits=True,
    )
    best = [logits[0].float().log_softmax(-1).topk(_NUM_BEST) for logits in output.logits]
    written = output.sequences[0, row.shape[1] :].tolist()
    return written, [[list(pair) for pair in zip(b.indices.tolist(), b.values.tolist(), strict=True)] for b in best]


if __name__ == "__main__":
    main(*sys.argv[1:])
