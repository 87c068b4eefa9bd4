"""The model of a local teacher: which config it is loaded by, and whether it can be asked at all."""

from typing import NamedTuple

from sft.absolute_paths import absolute_paths
from sft.atomic_files import fingerprint
from sft.chat.prompts import ChatPrompts, Setting
from sft.chat.user_turns import UserTurns
from sft.config import ModelConfig, SftConfig
from sft.config_paths import HubKind
from sft.data.rendering.chat_template import load_own_tokenizer
from sft.errors import RecordError, UserError
from sft.hub_answers import check_hub_answers
from sft.model.loading import check_model
from sft.model.weight_files import content_sample, finder, weight_files

_KINDS: tuple[HubKind, ...] = ("model",)
_CONFIGS = ("config.json", "generation_config.json")


class LocalModel(NamedTuple):
    """A model that can be asked."""

    config: SftConfig
    """That of the job, with this model in the place of its own."""
    fingerprint: str
    """Of all that its answers depend on: weights, template, tokens, and the dtype that it computes in."""


def check_local_model(config: SftConfig, path: str | None, writes_user: bool) -> LocalModel:
    """The model at `path`; nothing of it is loaded yet.

    Args:
        config: the job's, with absolute paths. Its own model keeps its settings; another one has the defaults.
        path: a folder or Hub id; None: the job's own model.
        writes_user: whether it is to write turns of the user, too.

    Raises:
        UserError: there is no such model, or it has no template that can be asked by.
    """
    try:
        taught = config if path is None else _with_model(config, path)
        check_hub_answers(taught, _KINDS)
        check_model(taught.model)
        _check_template(taught.model)
        prompts = ChatPrompts(taught)
        prompts.write([{"role": "user", "content": "probe"}], Setting())
        if writes_user:
            UserTurns(taught.model).write([])
    except (UserError, RecordError) as error:
        whose = f"construct.teacher.path: {path}" if path else "construct: without a teacher, model.path is asked"
        raise UserError(f"{whose}: {error}") from None
    return LocalModel(taught, fingerprint([sample_of(taught.model.path), prompts.fingerprint, taught.model.dtype]))


def sample_of(path: str) -> object:
    """What tells the weights and configs of the model at `path` from others."""
    find = finder(path, download=True)
    files = [file for name in _CONFIGS if (file := find(name)) is not None]
    return content_sample([*files, *weight_files(path, find)])


def _with_model(config: SftConfig, path: str) -> SftConfig:
    own = ModelConfig(path=path, dtype=config.model.dtype)
    other = absolute_paths(config.model_copy(update={"model": own}))
    return config if other.model.path == config.model.path else other


def _check_template(model: ModelConfig) -> None:
    if model.chat_template is None and not load_own_tokenizer(model).chat_template:
        raise UserError(
            "it has no chat template, so it was not tuned to be asked. Name a tuned model, or its template with "
            "model.chat_template."
        )
