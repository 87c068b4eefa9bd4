"""The prompts for teachers: Jinja templates in this folder, each the text of a user's turn.

A user's folder may hold files of the same names, which replace them.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import (
    ChoiceLoader,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sft.config_words import did_you_mean
from sft.errors import UserError

ENDING = ".j2"
_CONTROL = re.compile(
    r"<(?=[|\uff5c]|</?SYS>>|/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tool_call|tool_response)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|\x85|\u2028|\u2029"
)
"""How the control tokens of chat templates begin; and what ends a line, as far as JSON leaves it as it is.

Each way begins with a character, not with a class: so the text is searched for these characters, five times as fast.
"""
_READABLE = json.JSONEncoder(ensure_ascii=False)


class Prompts:
    """The templates of the program, some of them replaced."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` holds the user's own.

        Raises:
            UserError: it is not there, or holds a template that no recipe uses.
        """
        own = PackageLoader(__name__, "")
        names = sorted(name.removesuffix(ENDING) for name in own.list_templates() if name.endswith(ENDING))
        if folder is not None:
            _check(folder, names)
        loaders = [FileSystemLoader(folder)] if folder is not None else []
        self._environment = ImmutableSandboxedEnvironment(
            loader=ChoiceLoader([*loaders, own]),
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["tojson"] = _quoted
        self._fingerprints: dict[tuple[str, ...], str] = {}

    def render(self, name: str, **values: Any) -> str:
        """The text of a prompt.

        Raises:
            UserError: the template cannot be rendered.
        """
        try:
            return self._environment.get_template(name + ENDING).render(**values).strip()
        except TemplateSyntaxError as error:
            raise _wrong(name, f"line {error.lineno}: {error.message}", values) from None
        except TemplateNotFound as error:
            raise _wrong(name, f"there is no template {error.name} beside it", values) from None
        except RecursionError:
            raise _wrong(name, "it calls itself without end", values) from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _wrong(name, str(error), values) from None

    def fingerprint(self, names: tuple[str, ...]) -> str:
        """Identifies the templates of these names by their text: 16 hexadecimal digits."""
        if names not in self._fingerprints:
            loader = self._environment.loader
            assert loader is not None
            texts = [loader.get_source(self._environment, name + ENDING)[0] for name in names]
            self._fingerprints[names] = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        return self._fingerprints[names]


def _quoted(value: Any, **options: Any) -> str:
    """JSON in one line, in which no control token of a chat template stands: a server may take its text for the token.

    Jinja's own is for HTML, and spells signs and letters that a model reads better as they are.
    """
    # To make an encoder takes longer than to quote a record.
    encoder = json.JSONEncoder(ensure_ascii=False, **options) if options else _READABLE
    return without_control_tokens(encoder.encode(value))


def without_control_tokens(text: str) -> str:
    """The text with the first sign of each control token, and each unusual end of a line, as JSON escapes it."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _check(folder: Path, names: list[str]) -> None:
    if not folder.is_dir():
        raise UserError(f"construct.prompts: there is no folder {folder}. Make it, with prompts of your own.")
    own = sorted(folder.glob(f"*{ENDING}"))
    if not own:
        raise UserError(
            f"construct.prompts: {folder} holds no file NAME{ENDING}, so it replaces no prompt. The names are "
            f"{', '.join(names)}."
        )
    for file in own:
        if not file.is_file():
            raise UserError(f"construct.prompts: {file} is no file, so it replaces no prompt. Write the prompt there.")
        if file.stem not in names:
            way_out = did_you_mean(file.stem, names)
            raise UserError(f"construct.prompts: {file} replaces no prompt of the program; {way_out}")


def _wrong(name: str, why: str, values: dict[str, Any]) -> UserError:
    known = ", ".join(values)
    return UserError(f"construct.prompts: {name}{ENDING} cannot be used: {why}. What it may use: {known}.")
