"""Trains arms with `sft`, a few at a time: each is a fork of this process, which has imported everything.

A fork calls what `python -m sft.training CONFIG` calls, and then asks the tuned model once more where the arm wants it,
as `sft evaluate RUN SETTING` does. Its output goes to a file beside its config. A run that is finished is not repeated,
and one that was killed goes on.
"""

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot  # noqa: F401  (what every fork would import)
import torch
import transformers.models.llama.modeling_llama  # noqa: F401  (the same)

from benchmarks.learning.arms import Arm, config_of
from sft.absolute_paths import absolute_paths
from sft.answer_files import answers_of
from sft.job_config import load_job
from sft.run_folder import RunFolder
from sft.training.__main__ import main as train
from sft.training.whole_evaluation import measure_whole, model_here, models_of, prepare_measurement

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05


class Ended(NamedTuple):
    """A training that came to its end."""

    arm: Arm
    seconds: float
    cpu_seconds: float
    code: int


def is_finished(arm: Arm) -> bool:
    """Whether the arm is trained, and its models are asked."""
    run = RunFolder(Path(arm.config["run"]["dir"]))
    names = [stage["name"] for stage in arm.config["stages"]]
    return run.has_finished(names) and len(also_answered(run)) == len(arm.also_asked)


def also_answered(run: RunFolder) -> list[Path]:
    """The answers of the tuned model to what it was asked once more."""
    measured = run.evaluations.glob("asked/*/[0-9]*-*.json")
    return sorted(answers_of(path) for path in measured)


def train_arms(given: Sequence[Arm], folder: Path, at_once: int, until: float) -> Iterator[Ended]:
    """Train those that are not finished, in their order; each that has ended.

    Args:
        given: their configs lie in `folder`; of several with the same run, one is trained.
        folder: see `benchmarks.learning.arms`.
        at_once: so many at the same time.
        until: none begins later than this (`time.monotonic`).
    """
    runs: dict[str, Arm] = {}
    for arm in given:
        if not is_finished(arm):
            runs.setdefault(arm.config["run"]["dir"], arm)
    waiting = [*runs.values()][::-1]
    running: dict[int, tuple[Arm, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once and time.monotonic() < until:
                arm = waiting.pop()
                path = config_of(folder, arm)
                pid = forked(partial(_train, arm, path), path.with_suffix(".log"))
                running[pid] = (arm, time.monotonic())
            if not running:
                return
            time.sleep(_POLL_SECONDS)
            for pid in [*running]:
                ended, status, used = os.wait4(pid, os.WNOHANG)
                if ended:
                    arm, began = running.pop(pid)
                    cpu, code = used.ru_utime + used.ru_stime, os.waitstatus_to_exitcode(status)
                    yield Ended(arm, time.monotonic() - began, cpu, code)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def forked(work: Callable[[], int], log: Path, num_threads: int = 1) -> int:
    """The id of a process that does the work, whose exit code is what that returns; it ends with this one.

    This process may have used torch for no backward pass and with one thread only: else it cannot fork.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        assert os.getppid() == parent, "it has ended before it could be watched"
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        torch.set_num_threads(num_threads)  # torch makes its pool of threads anew in a fork
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _train(arm: Arm, path: Path) -> int:
    code = train([str(path)])
    if code == 0 and arm.also_asked:
        _ask_again(path, arm.also_asked)
    return code


def _ask_again(path: Path, settings: Sequence[str]) -> None:
    config = absolute_paths(load_job(path, settings).sft)
    measurement = prepare_measurement(config)
    [model] = models_of(config, [config.stages[-1].name])
    measure_whole(config, measurement, model, model_here, lambda: None)
