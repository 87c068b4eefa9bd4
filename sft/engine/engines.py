"""The engines by name. Each is imported when it is chosen, because DeepSpeed chooses its device at import: by then
the rank's device is known.
"""

import os
from collections.abc import Mapping
from typing import Protocol

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.engine.engine import Engine
from sft.engine.lean_deepspeed import lean_deepspeed
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
    with lean_deepspeed():
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


ENGINES: Mapping[str, BuildEngine] = {"zero3": _zero3, "plain": _plain, "single_process": _single_process}
