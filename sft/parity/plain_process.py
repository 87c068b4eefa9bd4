"""Runs `plain_transformers` in a process of its own, which finds nothing of this program, and reads what it found."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from sft.data.rendering.chat_template import TEMPLATE_DATE
from sft.parity.case import Case
from sft.progress import Tell

_SECONDS = 3600.0
"""The process is ended after this time."""
_POLL_SECONDS = 0.2
_LAST_LINES = 6
_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH")
"""Variables that would make transformers believe that it is one of several ranks, or that name our folders."""


class PlainError(Exception):
    """transformers does not load the folder, or does not compute with it; the text says in its words why."""


@dataclass(frozen=True, slots=True)
class PlainCase:
    """What transformers alone makes of a case."""

    log_probs: tuple[float, ...]
    """Of the answer's tokens."""
    answer: tuple[int, ...]
    """Written without sampling, by the folder's own ends, and without what else its generation config changes."""
    best: tuple[tuple[tuple[int, float], ...], ...]
    """The most probable tokens at each place of `answer`, with their log-probabilities."""
    own_answer: tuple[int, ...] | None = None
    """With all of its generation config, where that changes answers that are not sampled."""
    prompt_ids: tuple[int, ...] | None = None
    """By the folder's template; None where it was not asked, or refuses."""
    dated_prompt_ids: tuple[int, ...] | None = None
    """The same with the date of the training."""
    refused: str = ""
    """Why the template writes no prompt."""


@dataclass(frozen=True, slots=True)
class PlainResult:
    """What transformers alone makes of a folder."""

    dtype: str
    eos_token_id: tuple[int, ...]
    pad_token_id: int | None
    shaping: Mapping[str, Any]
    """Settings of its generation config that change answers without any sampling."""
    cases: tuple[PlainCase, ...]


def run_plain(
    folder: Path, cases: Sequence[Case], device: str, trust_remote_code: bool, tell: Tell = lambda: None
) -> PlainResult:
    """What transformers alone makes of the folder.

    Args:
        folder: the exported model.
        cases: what is computed.
        device: `cpu` or a GPU.
        trust_remote_code: whether code in the folder may run.
        tell: called while the process works.

    Raises:
        PlainError: it fails, or takes too long.
    """
    task = {
        "folder": str(folder),
        "device": device,
        "trust_remote_code": trust_remote_code,
        "date": TEMPLATE_DATE.isoformat(),
        "cases": [case.as_json() for case in cases],
    }
    program = str(files(__package__) / "plain_transformers.py")
    with tempfile.TemporaryDirectory(prefix="sft-parity-") as aside:
        given, found, said = Path(aside, "task.json"), Path(aside, "result.json"), Path(aside, "said.txt")
        given.write_text(json.dumps(task), encoding="utf-8")
        with said.open("wb") as errors:
            _run([sys.executable, "-P", program, str(given), str(found)], aside, errors, tell)
        if not found.is_file():
            lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PlainError(" ".join("\n".join(lines[-_LAST_LINES:]).split())[-1000:] or "its process ended")
        return _read(json.loads(found.read_text(encoding="utf-8")))


def _run(command: list[str], folder: str, errors: Any, tell: Tell) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in _OF_RANKS}
    variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
    ) as process:
        ends = time.monotonic() + _SECONDS
        try:
            while process.poll() is None:
                tell()
                if time.monotonic() > ends:
                    raise PlainError(f"transformers was not done after {_SECONDS / 60:.0f} minutes")
                threading.Event().wait(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()


def _read(content: Mapping[str, Any]) -> PlainResult:
    assert not content["foreign"], f"the plain process imported {content['foreign']}"
    ends = content["eos_token_id"]
    return PlainResult(
        content["dtype"],
        tuple(ends if isinstance(ends, list) else [] if ends is None else [ends]),
        content["pad_token_id"],
        content["shaping"],
        tuple(map(_read_case, content["cases"])),
    )


def _read_case(content: Mapping[str, Any]) -> PlainCase:
    def ids(name: str) -> tuple[int, ...] | None:
        return tuple(content[name]) if name in content else None

    best = tuple(tuple((int(token), float(value)) for token, value in place) for place in content["best"])
    return PlainCase(
        tuple(content["log_probs"]),
        tuple(content["answer"]),
        best,
        ids("own_answer"),
        ids("prompt_ids"),
        ids("dated_prompt_ids"),
        content.get("refused", ""),
    )
