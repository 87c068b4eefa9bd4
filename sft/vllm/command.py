"""The command that starts a server of vLLM: the user's own, and what a measurement adds to it."""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from sft.errors import UserError

USUAL = "vllm serve"
_SERVE = "serve"
_OURS = ("--host", "--port", "--uds", "--api-key", "--model", "--served-model-name", "--root-path")
"""Each server has its own."""
_FOR_THE_MACHINE = (
    *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp"),
    *("--gpu-memory-utilization", "--max-num-seqs", "--max-num-batched-tokens", "--enforce-eager"),
    *("--swap-space", "--cpu-offload-gb", "--distributed-executor-backend", "--load-format", "--download-dir"),
)
"""They say how a model fits on the machine, not what it computes."""


@dataclass(frozen=True, slots=True)
class ServedFolder:
    """What a server is to serve."""

    path: str
    """The model: a folder or Hub id."""
    tokenizer: str
    """That of the run."""
    dtype: str
    max_len_tokens: int
    """Of the longest prompt with its answer."""
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class VllmCommand:
    """A command that can be run here; see `read_command`."""

    program: tuple[str, ...]
    """Up to and with `serve`."""
    options: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """The options that may change what a model computes."""
        found: list[str] = []
        rest = list(self.options)
        while rest:
            name, values = rest[0], [*takewhile(lambda word: not _is_option(word), rest[1:])]
            rest = rest[1 + len(values) :]
            if _name(name) not in _FOR_THE_MACHINE:
                found += [name, *values]
        return tuple(found)

    def words(self, folder: ServedFolder, name: str, port: int) -> list[str]:
        """The whole command for a server on loopback.

        Args:
            folder: what it serves. Where the user's options say otherwise, they count.
            name: that of the model there.
            port: a free one.
        """
        ours = {
            "--tokenizer": [folder.tokenizer],
            "--dtype": [folder.dtype],
            "--max-model-len": [str(folder.max_len_tokens)],
            # What the model's own generation config says does not count in an evaluation.
            "--generation-config": ["vllm"],
            "--uvicorn-log-level": ["warning"],
            **({"--trust-remote-code": []} if folder.trust_remote_code else {}),
        }
        given = {_name(word) for word in self.options}
        added = [word for option, values in ours.items() if option not in given for word in (option, *values)]
        where = ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
        return [*self.program, folder.path, *self.options, *added, *where]


def read_command(text: str) -> VllmCommand:
    """The command that a user gave.

    Raises:
        UserError: it does not start vLLM, is not found, or says what `sft evaluate` has to say.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--vllm {text!r} is no command: {error}.") from None
    if words and Path(words[0]).name == "vllm" and words[1:2] != [_SERVE]:
        words.insert(1, _SERVE)
    if _SERVE not in words:
        raise UserError(
            f"--vllm {text!r} does not start vLLM. Give a command with `serve`, such as --vllm {_EXAMPLE!r}; or put a "
            f"bare --vllm at the end of the line, where it takes no other word."
        )
    at = words.index(_SERVE) + 1
    program, options = words[:at], words[at:]
    _check_options(options)
    if shutil.which(program[0]) is None:
        raise UserError(
            f"--vllm: {program[0]} is not found here. vLLM lives in an environment of its own, as it needs other "
            f"versions of torch: `python -m venv vllm && vllm/bin/pip install vllm`. Then name its program: "
            f"--vllm {_EXAMPLE!r}"
        )
    return VllmCommand(tuple(program), tuple(options))


def _check_options(options: Sequence[str]) -> None:
    if options and not _is_option(options[0]):
        raise UserError(f"--vllm: leave out {options[0]}: which models are served, --model says.")
    if ours := [name for name in map(_name, options) if name in _OURS]:
        raise UserError(f"--vllm: leave out {', '.join(ours)}: each model gets a server of its own on loopback.")


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit()


def _name(word: str) -> str:
    """That of an option, as vLLM reads it: with `=`, and with underscores."""
    name = word.partition("=")[0]
    return name.replace("_", "-") if _is_option(name) else ""


_EXAMPLE = "/path/to/vllm/bin/vllm serve --tensor-parallel-size 4"
