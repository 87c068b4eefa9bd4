"""The engines by name. Each is imported when it is chosen, because DeepSpeed chooses its device at import: by then
the rank's device is known.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.engine.engine import Engine
from sft.quick_imports import quick_imports
from sft.ranks.ranks import Ranks


class BuildEngine(Protocol):
    """Makes an engine; all ranks call it together."""

    def __call__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks,
        awaits_state: bool = False,
    ) -> Engine:
        """An engine of the model at `model_path` with a stage's optimizer.

        With `awaits_state`, a saved state is loaded before anything else, so the weights that it has need not be read.
        """
        ...


def _zero3(
    config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks, awaits_state: bool = False
) -> Engine:
    os.environ["DS_ACCELERATOR"] = "cuda" if ranks.world.on_gpu else "cpu"
    with quick_imports(), _without_mlflow():
        from sft.engine.zero3 import Zero3Engine  # noqa: PLC0415  (see above)

    return Zero3Engine(config, optimizer, model_path, ranks, awaits_state)


def _single_process(
    config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks, awaits_state: bool = False
) -> Engine:
    from sft.engine.single_process import SingleProcessEngine  # noqa: PLC0415  (see above)

    return SingleProcessEngine(config, optimizer, model_path, ranks, awaits_state)


def _plain(
    config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks, awaits_state: bool = False
) -> Engine:
    from sft.engine.plain import PlainEngine  # noqa: PLC0415  (see above)

    return PlainEngine(config, optimizer, model_path, ranks, awaits_state)


@contextmanager
def _without_mlflow() -> Iterator[None]:
    """Inside, `import mlflow` fails, as where it is not installed: DeepSpeed's autotuner, which is not used here,
    imports it if it can, which takes a second of every start."""
    modules: dict[str, Any] = sys.modules
    before = modules.get("mlflow")
    modules["mlflow"] = None
    try:
        yield
    finally:
        del modules["mlflow"]
        if before is not None:
            modules["mlflow"] = before


ENGINES: Mapping[str, BuildEngine] = {"zero3": _zero3, "plain": _plain, "single_process": _single_process}
