"""Imports DeepSpeed without what takes it a second or two of every start and is not used here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from sft.paused_collector import paused_collector


@contextmanager
def lean_deepspeed() -> Iterator[None]:
    """Import DeepSpeed inside, for the first time in this process."""
    with paused_collector(), _without_mlflow():
        _import_muon()
        yield


@contextmanager
def _without_mlflow() -> Iterator[None]:
    """Inside, `import mlflow` fails, as where it is not installed: DeepSpeed's autotuner imports it if it can."""
    modules: dict[str, Any] = sys.modules
    before = modules.get("mlflow")
    modules["mlflow"] = None
    try:
        yield
    finally:
        del modules["mlflow"]
        if before is not None:
            modules["mlflow"] = before


def _import_muon() -> None:
    """DeepSpeed asks of each optimizer whether it is Muon. For that it imports Muon, which `torch.compile` then wraps.

    Here no optimizer is Muon, so nothing calls what is left as it is.
    """
    with suppress(ImportError, AttributeError):  # a version of DeepSpeed without it
        compiler: Any = import_module("deepspeed.runtime.compiler")
        before, compiler.compile = compiler.compile, lambda: compiler.dummy_decorator
        try:
            import_module("deepspeed.runtime.zero.muon.original_muon")
        finally:
            compiler.compile = before
