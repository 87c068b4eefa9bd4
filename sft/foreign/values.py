"""Converts the value of another system's key to values of ours: total functions, which accept any value.

Each takes the value and all of their keys beside it, and returns our fields by their path. `{}` means that the value
has no equal here, None that nothing needs to be said about it. A path names the first stage, `stages.0`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Theirs = Mapping[str, Any]
Ours = Mapping[str, Any] | None
Convert = Callable[[Any, Theirs], Ours]

NEVER_CLIPS = 1e9
"""For a gradient norm limit of 0, which turns clipping off elsewhere."""
_WANDB_PROJECT = "huggingface"
"""The project of transformers' own reporting if WANDB_PROJECT is not set."""
_SCHEDULES = {
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "cosine_warmup_with_min_lr": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
}


def number(value: Any) -> float | int | None:
    """The value as a number. A text counts if it reads as one, such as `2e-5`, which PyYAML loads as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
        value = int(value) if value == int(value) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        return None
    return value


def is_on(value: Any) -> bool:
    """Whether a switch is on: true, a text other than those that mean no, a number above 0."""
    if isinstance(value, str):
        return value.lower() not in ("", "false", "no", "none", "off", "0")
    return bool(value)


def same(*paths: str) -> Convert:
    """The value unchanged, at each of these paths."""
    return lambda value, theirs: dict.fromkeys(paths, value)


def positive(*paths: str) -> Convert:
    """A number above 0, unchanged."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        found = number(value)
        return dict.fromkeys(paths, found) if found is not None and found > 0 else {}

    return convert


def count(*paths: str) -> Convert:
    """A whole number above 0; any other number counts as not given."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        found = number(value)
        if found is None or found != int(found):
            return {}
        return dict.fromkeys(paths, int(found)) if found > 0 else None

    return convert


def epochs(value: Any, theirs: Theirs) -> Ours:
    """A number of epochs, unless a number of steps takes precedence."""
    if (number(theirs.get("max_steps")) or 0) > 0:
        return None
    return positive("stages.0.budget.epochs")(value, theirs)


def part(path: str) -> Convert:
    """A number of at least 0 and below 1."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        found = number(value)
        return {path: float(found)} if found is not None and 0 <= found < 1 else {}

    return convert


def switch(path: str, on: Any = True, off: Any = False) -> Convert:
    """One value if it is on, another if it is off; None means that nothing needs to be said."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        ours = on if is_on(value) else off
        return None if ours is None else {path: ours}

    return convert


def elsewhere(value: Any, theirs: Theirs) -> Ours:
    """Converted together with others, by `sft.first_config`."""
    return None


def missing(value: Any, theirs: Theirs) -> Ours:
    """No equal, unless it is off."""
    return {} if is_on(value) else None


def rows_per_step(value: Any, theirs: Theirs) -> Ours:
    """The rows of a step on one device: a device's batch times the accumulation steps."""
    batch = [theirs.get(key) for key in ("per_device_train_batch_size", "micro_batch_size")]
    factors = [number(given) for given in (*batch, theirs.get("gradient_accumulation_steps")) if given is not None]
    if number(value) is None or None in factors:
        return {}
    rows = 1
    for factor in factors:
        rows *= int(factor or 1)
    return {"train.packs_per_step": rows} if rows > 0 else {}


def schedule(value: Any, theirs: Theirs) -> Ours:
    """The schedule of the learning rate; and its end, if that is given beside it."""
    name = str(value)
    if name not in _SCHEDULES:
        return {}
    ours: dict[str, Any] = {"stages.0.optimizer.schedule": _SCHEDULES[name]}
    if name == "constant":
        ours["stages.0.optimizer.warmup_ratio"] = 0.0  # theirs has no warm-up
    more = theirs.get("lr_scheduler_kwargs")
    if "min_lr" in name and isinstance(more, Mapping):
        least, peak = number(more.get("min_lr")), number(theirs.get("learning_rate"))
        ratio = number(more.get("min_lr_rate"))
        if ratio is None and least is not None and peak:
            ratio = least / peak
        if ratio is not None:
            ours["stages.0.optimizer.min_lr_ratio"] = ratio
    return ours


def warmup(value: Any, theirs: Theirs) -> Ours:
    """A number of steps; below 1 it is a share of them."""
    found = number(value)
    if found is None or found < 0:
        return {}
    if "constant" in (theirs.get("lr_scheduler_type"), theirs.get("lr_scheduler")):
        return None
    if found < 1:
        return {"stages.0.optimizer.warmup_ratio": float(found)}
    return {"stages.0.optimizer.warmup_steps": int(found)}


def warmup_ratio(value: Any, theirs: Theirs) -> Ours:
    """The same as a share; a number of steps takes precedence."""
    if number(theirs.get("warmup_steps")):
        return None
    return warmup(value, theirs)


def betas(value: Any, theirs: Theirs) -> Ours:
    """The two of AdamW; one may be given alone."""
    both = [number(theirs.get("adam_beta1", 0.9)), number(theirs.get("adam_beta2", 0.999))]
    return {} if None in both else {"stages.0.optimizer.betas": both}


def optimizer(value: Any, theirs: Theirs) -> Ours:
    """AdamW is the default here; 8-bit states and other optimizers have no equal."""
    name = str(value)
    if name in ("lion", "lion_32bit"):
        return {"stages.0.optimizer.name": "lion"}
    return None if name in ("adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf") else {}


def epsilon(value: Any, theirs: Theirs) -> Ours:
    """AdamW's; Lion has none."""
    if {"lion", "lion_32bit"} & {str(theirs.get("optim")), str(theirs.get("optimizer"))}:
        return None
    return positive("stages.0.optimizer.eps")(value, theirs)


def max_grad_norm(value: Any, theirs: Theirs) -> Ours:
    """0 turns clipping off elsewhere."""
    found = number(value)
    if found is None or found < 0:
        return {}
    return {"stages.0.optimizer.max_grad_norm": found or NEVER_CLIPS}


def every(section: str) -> Convert:
    """A number of steps; below 1 it is a share of the whole training, and so of its epochs."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        found = number(value)
        kind = {"checkpoint": "save", "evaluate": "eval"}[section]
        strategies = (theirs.get(f"{kind}_strategy"), theirs.get("evaluation_strategy") if kind == "eval" else None)
        if {"no", "epoch", False} & set(map(_plain, strategies)):
            return None  # the other system ignores it then
        if found is None or found <= 0:
            return {}
        if found >= 1:
            return {f"{section}.every_steps": int(found)}
        if steps := number(theirs.get("max_steps")):
            return {f"{section}.every_steps": max(1, round(found * steps))} if steps > 0 else {}
        epochs = number(theirs.get("num_train_epochs", theirs.get("num_epochs")))
        return {f"{section}.every_epochs": round(found * epochs, 6), **_no_steps(section)} if epochs else {}

    return convert


def times_per_epoch(section: str) -> Convert:
    """A number of times in an epoch."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        found = number(value)
        if found is None or found <= 0 or (number(theirs.get("max_steps")) or 0) > 0:
            return {}
        return {f"{section}.every_epochs": round(1 / found, 6), **_no_steps(section)}

    return convert


def strategy(section: str) -> Convert:
    """`no`, `steps` or `epoch`."""

    def convert(value: Any, theirs: Theirs) -> Ours:
        match _plain(value):
            case "epoch":
                return times_per_epoch(section)(1, theirs)
            case "no" | False:
                return _no_steps(section)
            case "steps":
                return None
            case _:
                return {}

    return convert


def _no_steps(section: str) -> dict[str, Any]:
    # Evaluations between those before and after a stage are off by default, saves are not.
    return {"checkpoint.every_steps": None} if section == "checkpoint" else {}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool) else None


def bfloat16(value: Any, theirs: Theirs) -> Ours:
    """`auto` and `full` are on; if it is off and float16 is not on, the model computes in float32."""
    if is_on(value):
        return {"model.dtype": "bfloat16"}
    return None if is_on(theirs.get("fp16")) else {"model.dtype": "float32"}


def float16(value: Any, theirs: Theirs) -> Ours:
    """bfloat16 replaces it."""
    return {"model.dtype": "bfloat16"} if is_on(value) else None


def dtype(value: Any, theirs: Theirs) -> Ours:
    """One of the two dtypes that are possible here."""
    return {"model.dtype": value} if value in ("bfloat16", "float32") else None if value == "auto" else {}


def chat_template(value: Any, theirs: Theirs) -> Ours:
    """ChatML by its name, or a Jinja file; another name is taken to mean the model's own template."""
    name = str(value)
    if name in ("tokenizer_default", "tokenizer_default_fallback_chatml", "jinja"):
        return None
    if name == "chatml" or re.search(r"\.(jinja2?|j2)$", name):
        return {"model.chat_template": name}
    return {}


def run_name(value: Any, theirs: Theirs) -> Ours:
    """Only characters that a file name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).strip("-._")[:100]
    return {"run.name": name} if name else {}


def report_to(value: Any, theirs: Theirs) -> Ours:
    """One sink or several, by their names."""
    given = value if isinstance(value, list) else [value]
    names = {str(name).lower() for name in given}
    if names & {"none", "false"}:
        return {"logging.tensorboard": False}
    ours: dict[str, Any] = {}
    if "tensorboard" in names:
        ours["logging.tensorboard"] = True
    if "wandb" in names:
        ours["logging.wandb.project"] = str(theirs.get("project") or _WANDB_PROJECT)
    if "mlflow" in names:
        ours["logging.mlflow.experiment"] = str(theirs.get("mlflow_experiment_name") or "Default")
    return ours


def last_only(value: Any, theirs: Theirs) -> Ours:
    """Only the last answer of a conversation is learned."""
    return {"data.train_on": "last_assistant"} if is_on(value) else None
