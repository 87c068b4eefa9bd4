"""How the model is used at inference: which tokens end its generation, and in which form it reads messages."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from sft.config import ModelConfig
from sft.data.rendering.chat_template import control_ids
from sft.data.rendering.turn_form import TurnForm
from sft.errors import UserError


class Inference(NamedTuple):
    """What is known about the model's use, besides its tokenizer and template."""

    stop_tokens: frozenset[str] = frozenset()
    """Tokens that end the model's generation."""
    turn_end: str | None = None
    """The text put behind answers that the template does not end."""
    train_on_thoughts: bool = True
    form: TurnForm = TurnForm()
    """The form of messages that this template reads."""


def generation_stops(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts of the tokens that end the model's generation; the tokenizer's own end of text comes first.

    A tokenizer from another place than the model's has other ids, so the model's file is then ignored.
    """
    ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if model.tokenizer is None:
        stops = _generation_config(model.path).get("eos_token_id")
        ids += [i for i in (stops if isinstance(stops, list) else [stops]) if isinstance(i, int)]
    texts = [text for text in tokenizer.convert_ids_to_tokens(ids) if isinstance(text, str)]
    return tuple(dict.fromkeys(texts))


def choose_turn_end(model: ModelConfig, tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...]) -> str | None:
    """The token that `model.turn_end` puts behind answers that the template does not end.

    Raises:
        UserError: it is not a control token of the tokenizer, or `auto` finds none.
    """
    if model.turn_end is None:
        return None
    control = {str(token) for token in tokenizer.convert_ids_to_tokens(control_ids(tokenizer))}
    if model.turn_end == "auto":
        if not stops:
            raise UserError(
                "model.turn_end: auto: neither the tokenizer nor the model's generation config names an end of text. "
                f"Name one of the tokenizer's control tokens: {_listed(control)}"
            )
        return stops[0]
    if model.turn_end not in control:
        raise UserError(
            f"model.turn_end: {model.turn_end!r} is not a control token of the tokenizer. "
            f"Needed: auto, or one of {_listed(control)}"
        )
    return model.turn_end


def _generation_config(path: str) -> dict[str, Any]:
    """The model's generation config; empty where it has none."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        file = folder / "generation_config.json"
    else:
        found = cached_file(path, "generation_config.json", _raise_exceptions_for_missing_entries=False)
        if found is None:
            return {}
        file = Path(found)
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"model: {file} cannot be read: {error}") from None
    return read if isinstance(read, dict) else {}


def _listed(tokens: set[str]) -> str:
    return ", ".join(sorted(tokens)[:20])
