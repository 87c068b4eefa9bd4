"""How a job lays out its examples for the model, or why it cannot be trained: found before a machine is taken.

A process of its own looks at the model. So `sft plan` needs no torch, and `sft train` does something else meanwhile.
The answer is kept beside the token stores. Its key is the model's config, the sizes and times of its files, and the
versions of torch and transformers.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sft.absolute_paths import may_be_hub_id
from sft.atomic_files import read_json, write_json
from sft.config import SftConfig
from sft.errors import UserError
from sft.model.weight_files import finder, weight_files
from sft.model_sizes import ImpossibleSizesError
from sft.own_process import own_environment, own_module
from sft.sizing.model_config import read_model_config

_TIMEOUT_SECONDS = 120
_COMPUTES = ("torch", "transformers")


Answer = dict[str, Any]
"""`{"layout": …, "reason": …, "notes": […]}`; the layout is None where it cannot be found out here.

The reason is None where it is reported elsewhere: the model is not here to be sized, or to be loaded.
"""


def find_layout(config: SftConfig, is_whole: bool = False) -> Answer:
    """The answer for a job (see `looking_for_layout`)."""
    with looking_for_layout(config, is_whole) as answer:
        return answer()


def laid_out(config: SftConfig, path: str) -> SftConfig:
    """The config with another whole model, and the layout that suits it.

    Raises:
        UserError: it cannot be used.
    """
    own = config.model_copy(update={"model": config.model.model_copy(update={"path": path})})
    layout = find_layout(own, is_whole=True)["layout"]
    return own.model_copy(update={"train": own.train.model_copy(update={"packing": layout or "one_example"})})


@contextmanager
def looking_for_layout(config: SftConfig, is_whole: bool = False) -> Iterator[Callable[[], Answer]]:
    """Begin to look, and yield a function that waits for the answer; nobody looks any more when the block is left.

    Args:
        config: the job's.
        is_whole: whether the whole model has to be here, as for a training; its weights may be on the Hub. If False,
            only files that are here are read, and nothing is fetched.

    Raises:
        UserError: the model cannot be trained, or not in the layout that `train.packing` asks for; said at once, or
            instead of the answer.
    """
    asked = {
        "model": config.model.model_dump(mode="json"),
        "packing": config.train.packing,
        "max_len_tokens": config.data.max_len_tokens,
        "sequence_parallel": config.train.sequence_parallel,
        "is_whole": is_whole,
    }
    known, kept = _known(config, asked)
    if known is not None:
        yield partial(_refused_or, known)
        return
    with _process(asked) as process:
        yield lambda: _refused_or(_keep(kept, _answer(process, asked), is_whole))


def _known(config: SftConfig, asked: dict[str, Any]) -> tuple[Answer | None, Path | None]:
    """What is known without a look, and where the answer of a look is kept; both None: its model may be on the Hub."""
    try:
        content, _folder = read_model_config(config.model.path)
    except ImpossibleSizesError:
        raise
    except UserError:
        path = config.model.path
        if asked["is_whole"] and not Path(path).exists() and not may_be_hub_id(path, "model"):
            raise
        return (None if asked["is_whole"] else _unknown(None)), None
    try:
        versions = [version(name) for name in _COMPUTES]
    except PackageNotFoundError as error:
        return _unknown(f"{error.name} is not installed here"), None
    kept = _kept(config, [content, asked, versions, _files(config)])
    return _read(kept), kept


def _keep(kept: Path | None, answer: Answer, is_whole: bool) -> Answer:
    # A fetch that failed now may succeed later.
    may_keep = answer.get("layout") is not None or (answer.get("is_lasting", False) and not is_whole)
    if may_keep and kept is not None and kept.parents[1].is_dir():
        with suppress(OSError):  # a plan needs neither write permission nor disk space
            write_json(kept, answer)
    return answer


def _refused_or(answer: Answer) -> Answer:
    if "error" in answer:
        raise UserError(answer["error"])
    return answer


def _read(kept: Path) -> Answer | None:
    """The answer that was kept; None if there is none, or none that can be read."""
    try:
        answer = read_json(kept)
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _kept(config: SftConfig, known_by: list[Any]) -> Path:
    name = hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()[:16]
    return config.data.cache_dir.expanduser() / "layouts" / f"{name}.json"


def _files(config: SftConfig) -> list[Any]:
    """Path, size and time of the model's and the tokenizer's files: they tell whether a file was replaced."""
    files: set[Path] = set()
    for path in (config.model.path, config.model.tokenizer):
        folder = Path(path or "").expanduser()
        if path and folder.is_dir():
            files.update(file for file in folder.iterdir() if file.is_file())
        elif path and not folder.exists():
            files.update(weight_files(path, finder(path, download=False)))
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)]


@contextmanager
def _process(asked: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """The one that looks; its answer is the last line of its standard output."""
    command, pipe = own_module("sft.model.first_look"), subprocess.PIPE
    environment = own_environment() if asked["is_whole"] else own_environment(HF_HUB_OFFLINE="1")
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as question:
                json.dump(asked, question)
            process.stdin = None  # all is said
            yield process
        finally:
            process.kill()


def _answer(process: "subprocess.Popen[str]", asked: dict[str, Any]) -> Answer:
    try:
        printed, said = process.communicate(timeout=None if asked["is_whole"] else _TIMEOUT_SECONDS)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args, stderr=said)
        answer: Answer = json.loads(printed.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        if asked["is_whole"]:
            last = (getattr(error, "stderr", None) or "").strip().splitlines()[-1:]
            raise UserError(
                f"model: {asked['model']['path']} could not be examined: {' '.join([str(error), *last])}"
            ) from error
        # Nothing is known, and nothing is lost: the run tries again when it starts.
        return _unknown(f"trying it failed: {error}")
    return answer


def _unknown(reason: str | None) -> Answer:
    return {"layout": None, "reason": reason, "notes": []}
