"""Opens a chat: loads its models, each with the prompts that it was trained with, and says what is known of them."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from launcher.chat.tags import tagged, tasks_of
from launcher.chat.target import Target
from launcher.console import styled
from sft.answering.writing import Style
from sft.atomic_files import is_published
from sft.chat.loaded import load_model_to_talk
from sft.chat.prompts import ChatPrompts, Setting
from sft.chat.served import ServedModel
from sft.chat.speaker import Speaker
from sft.config import SftConfig
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint
from sft.errors import UserError
from sft.model.loading import check_model_folder
from sft.run_folder import RunFolder
from sft.training.served_evaluation import ServedModels
from sft.training.whole_evaluation import BASE, WholeModelPath, has_other_tokens, named_models


class Opened(NamedTuple):
    """A chat that can begin."""

    config: SftConfig
    speakers: list[Speaker]
    setting: Setting
    tasks: tuple[str, ...]
    """Those of the run, whose names a tag may hold."""
    notes: tuple[str, ...]
    """What is known of the prompts and the replies."""
    warnings: tuple[str, ...]
    """What may not be as the user thinks."""


def open_chat(
    target: Target, wanted: Sequence[str], endpoint: Endpoint | None, setting: Setting, console: Console
) -> Opened:
    """Load the models that are wanted.

    Args:
        target: what is to be talked to.
        wanted: see `named_models`; with an endpoint, none are loaded unless they are named.
        endpoint: a served model to talk to, too.
        setting: what the user has set so far.
        console: shows what is loaded.

    Raises:
        UserError: a model, its prompts or the tag cannot be used.
    """
    config = target.config
    client = EndpointClient(endpoint) if endpoint else None
    served = ServedModels(client) if client else None
    models = _models(target, wanted) if wanted or not served else []
    prompts, tasks = _prompts(target), tasks_of(RunFolder(config.run.dir))
    for model in models:
        check_model_folder(model.path)
    setting, of_tag, warnings = tagged(config, setting, tasks)
    device = "cuda:0" if target.wants_gpu and torch.cuda.is_available() else "cpu"
    where = [f"{model.name}: {model.path}" for model in models]
    notes = [*where, *target.notes, *of_tag, _how_replies_come(config, device if models else "")]
    if target.model is None and not wanted and models and models[-1].name == BASE:
        warnings = (*warnings, f"No stage of {config.run.dir} is finished, so this is the model that it begins with.")
    speakers: list[Speaker] = []
    for model in models:
        own = _own_prompts(config, model)
        if own is not None:
            notes.append(f"{model.name} has other tokens: its prompts are in its own tokenizer and template.")
        speakers.append(_loaded(config, model, own or prompts, device, console))
    if served and client:
        style, evaluate = _style(config, prompts), config.evaluate
        there = ServedModel(client.endpoint, style, evaluate.max_new_tokens, prompts.tokenizer)
        speakers.append(Speaker(served.model.name, prompts, there.reply, is_served=True))
    return Opened(config, speakers, setting, tasks, tuple(notes), warnings)


def _models(target: Target, wanted: Sequence[str]) -> list[WholeModelPath]:
    if target.model is None:
        return named_models(target.config, wanted)
    others = named_models(target.config, wanted) if wanted else []
    alone = WholeModelPath("/".join(Path(target.model).parts[-2:]), target.model)
    return [alone, *(model for model in others if model.name != BASE)]


def _prompts(target: Target) -> ChatPrompts:
    """Those of the run, with a way out where the model that it began with is gone."""
    folders = RunFolder(target.config.run.dir).stage_folders()
    stages = [str(folder.model) for folder in folders if is_published(folder.model)]
    try:
        return ChatPrompts(target.config, stages)
    except UserError as error:
        if not stages or Path(target.config.model.path).exists():
            raise
        raise UserError(
            f"{error}\nThe tuned model alone may be talked to by its folder: sft chat {stages[-1]}"
        ) from None


def _own_prompts(config: SftConfig, model: WholeModelPath) -> ChatPrompts | None:
    """The prompts of a model with other tokens than those of the run; None for others."""
    if model.name == BASE or model.stage_index is not None or model.path == config.model.path:
        return None
    if not has_other_tokens(config, model.path):
        return None
    own = {"path": model.path, "tokenizer": None, "chat_template": None, "turn_end": "auto"}
    return ChatPrompts(config.model_copy(update={"model": config.model.model_copy(update=own)}))


def _loaded(config: SftConfig, model: WholeModelPath, prompts: ChatPrompts, device: str, console: Console) -> Speaker:
    with console.status(styled("loading {}", model.name)) if console.is_terminal else nullcontext():
        loaded = load_model_to_talk(config, model.path, prompts, device)
    return Speaker(model.name, prompts, loaded.reply)


def _style(config: SftConfig, prompts: ChatPrompts) -> Style:
    return Style(prompts.stop_ids, config.evaluate.temperature, config.evaluate.top_p, config.run.seed)


def _how_replies_come(config: SftConfig, device: str) -> str:
    evaluate = config.evaluate
    drawn = f"drawn at temperature {evaluate.temperature:g}, top_p {evaluate.top_p:g}, seed {config.run.seed}"
    how = drawn if evaluate.temperature > 0 else "the most probable token each time"
    where = {"": "", "cpu": ", on the CPU"}.get(device, ", on the GPU")
    return f"Replies: {how}, at most {evaluate.max_new_tokens:,} tokens{where}."
