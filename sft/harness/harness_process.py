"""`python -m sft.harness.harness_process SOCKET`: asks one model tasks of lm-evaluation-harness, until nobody asks.

Lines of JSON come and go: first the model and the settings; then each task, whose results go to a file. The only module
that imports lm_eval.
"""

import difflib
import fnmatch
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from sft.atomic_files import write_json, write_lines
from sft.config import ModelConfig
from sft.data.rendering.chat_template import RAISED_BY_CODE, load_tokenizer
from sft.errors import UserError
from sft.harness.results import samples_of, scores_in

_NUM_DRAWS = 1000
"""For the standard errors of metrics that are no means."""
_CPU_BATCH = 8
"""The harness finds the batch that fits by filling the memory until it fails, which a host does not survive."""
_MOST_CHARS = 600


def main(descriptor: int) -> None:
    """Ask until the one who wants to know is gone."""
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as stream:
        lines = _lines(stream)
        asking: _Asking | None = None
        for line in lines:
            content = json.loads(line)
            try:
                if asking is None:
                    asking = _Asking(content)
                    told: dict[str, Any] = {"problems": asking.problems()}
                else:
                    asking.ask(content["term"], Path(content["path"]), Path(content["samples"]))
                    told = {}
            except RAISED_BY_CODE as error:
                told = {"error": _in_words(error)}
            connection.sendall(json.dumps(told).encode() + b"\n")


class _Asking:
    """A model, and the tasks that there are."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._about = about
        own = TaskManager(include_path=about["include"], include_defaults=False)
        # To read the thousands of task files that the harness brings takes many seconds. Own groups may name them.
        is_all = not own.all_groups and all(_names(own, term) for term in about["terms"])
        self._manager = own if is_all else TaskManager(include_path=about["include"])
        self._model: HFLM | None = None

    def problems(self) -> list[str]:
        """What is wrong with the tasks that are named."""
        every = self._manager.all_tasks
        found = []
        for term in self._about["terms"]:
            if not _names(self._manager, term):
                if "/" in term:
                    found.append(f"--harness: no file in {term} defines a task: one has a line such as `task: my_task`")
                    continue
                close = difflib.get_close_matches(term, every, n=3)
                near = f"; near it: {', '.join(close)}" if close else ""
                found.append(f"--harness: lm-evaluation-harness {lm_eval.__version__} has no task {term}{near}")
        return found

    def ask(self, term: str, path: Path, samples: Path) -> None:
        """Write the results of a task, and the samples that they come from."""
        about, names = self._about, _names(self._manager, term)
        if about["shots"] and (problems := [*self._too_many_shots(names)]):
            raise UserError("; ".join(problems))
        results = lm_eval.simple_evaluate(
            model=self._loaded(),
            tasks=names,
            num_fewshot=about["shots"],
            limit=about["limit"],
            apply_chat_template=True,
            fewshot_as_multiturn=about["shots_as"] == "turns",
            log_samples=True,
            bootstrap_iters=_NUM_DRAWS,
            task_manager=self._manager,
            confirm_run_unsafe_code=about["allow_code"],
        )
        write_lines(samples, samples_of(results))
        write_json(path, {"term": term, "identity": about["identity"], "scores": scores_in(results)})

    def _too_many_shots(self, names: list[str]) -> Iterator[str]:
        """The tasks that have fewer examples to show; to read them costs little beside the model."""
        wished = self._about["shots"]
        for name, task in self._manager.load(names)["tasks"].items():
            if task.get_config("num_fewshot") == 0 or not hasattr(task, "sampler"):
                continue  # the harness shows none, whatever it is told
            # Where examples are among those that are asked, one is asked and cannot be shown.
            is_asked = task.fewshot_cfg.split == task.config.test_split
            num = len(task.sampler.fewshot_docs()) - is_asked
            if num < wished:
                yield f"--harness-shots {wished}: {name} has {num:,} examples to show: give {num} or fewer"

    def _loaded(self) -> HFLM:
        if self._model is None:
            about = self._about
            on_gpu = about["device"] != "cpu"
            self._model = HFLM(
                pretrained=about["path"],
                tokenizer=load_tokenizer(ModelConfig.model_validate(about["model"])),
                dtype=about["dtype"],
                device=about["device"],
                batch_size="auto" if on_gpu else _CPU_BATCH,
                trust_remote_code=False,
                add_bos_token=False,  # the template writes it where training saw one
            )
        return self._model


def _names(manager: TaskManager, term: str) -> list[str]:
    """The tasks, groups and tags that a term stands for; a pattern or a folder stands for single tasks."""
    if "/" in term:
        return list(TaskManager(include_path=[term], include_defaults=False).all_subtasks)
    if "*" in term:
        return fnmatch.filter(manager.all_subtasks, term)
    return [term] if term in manager.all_tasks else []


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines that come; when the other side is gone, this process ends at once, whatever it computes."""
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def _in_words(error: BaseException) -> str:
    text = " ".join(str(error).split())[:_MOST_CHARS]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
