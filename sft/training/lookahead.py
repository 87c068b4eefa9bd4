"""Reads the next step's micro-batches in a thread while a step trains, so that training does not wait for them.

The loader is a pure function of the step. So a run that stops or fails drops what was read ahead, at most one step, and
nothing is lost.
"""

import threading
from concurrent.futures import Future
from queue import SimpleQueue

import torch

from sft.data.collate import Batch
from sft.data.loader import StepLoader
from sft.world import World

_PATIENCE_SECONDS = 10.0

_Read = Future[list[Batch]]


class LookAhead:
    """One rank's micro-batches in one stage, one step ahead; used by the training thread alone."""

    def __init__(self, loader: StepLoader, num_steps: int, world: World) -> None:
        """`num_steps`: of the stage; nothing after it is read."""
        self._loader = loader
        self._num_steps = num_steps
        self._world = world
        self._wanted: SimpleQueue[tuple[int, _Read] | None] = SimpleQueue()
        self._ahead: tuple[int, _Read] | None = None
        # A daemon: a file system that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="look-ahead", daemon=True)
        self._thread.start()

    def micro_batches(self, step: int) -> list[Batch]:
        """Those of `step` (see `StepLoader`), in pinned memory if this rank has a GPU; the next step is read then.

        Raises:
            Exception: what reading this step has raised.
        """
        at, read = self._ahead or self._ask(step)
        assert at == step, f"step {at} was read ahead, and step {step} comes"
        batches = read.result()
        self._ahead = self._ask(step + 1) if step + 1 < self._num_steps else None
        return batches

    def close(self) -> None:
        """End the thread, and drop what it has read."""
        self._ahead = None
        self._wanted.put(None)
        self._thread.join(_PATIENCE_SECONDS)

    def _ask(self, step: int) -> tuple[int, _Read]:
        asked = step, _Read()
        self._wanted.put(asked)
        return asked

    def _run(self) -> None:
        if self._world.on_gpu:
            # A thread begins on the first GPU, and would take memory there for the pinned copies.
            torch.cuda.set_device(self._world.device)
        while (wanted := self._wanted.get()) is not None:
            step, read = wanted
            try:
                batches = self._loader.micro_batches(step)
                read.set_result([batch.pin() for batch in batches] if self._world.on_gpu else batches)
            except BaseException as error:  # the training thread raises it when it comes to this step
                read.set_exception(error)
