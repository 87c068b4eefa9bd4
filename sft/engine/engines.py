"""The engines by name. Each is imported when it is chosen, because DeepSpeed chooses its device at import: by then
the rank's device is known.
"""

import os
from collections.abc import Callable, Mapping

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.engine.engine import Engine
from sft.ranks.ranks import Ranks

BuildEngine = Callable[[SftConfig, OptimizerConfig, str, Ranks], Engine]
"""(config, a stage's optimizer, path of the model, ranks) → an engine. All ranks call it together."""


def _zero3(config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks) -> Engine:
    os.environ["DS_ACCELERATOR"] = "cuda" if ranks.world.on_gpu else "cpu"
    from sft.engine.zero3 import Zero3Engine  # noqa: PLC0415  (see above)

    return Zero3Engine(config, optimizer, model_path, ranks)


def _single_process(config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks) -> Engine:
    from sft.engine.single_process import SingleProcessEngine  # noqa: PLC0415  (see above)

    return SingleProcessEngine(config, optimizer, model_path, ranks)


def _plain(config: SftConfig, optimizer: OptimizerConfig, model_path: str, ranks: Ranks) -> Engine:
    from sft.engine.plain import PlainEngine  # noqa: PLC0415  (see above)

    return PlainEngine(config, optimizer, model_path, ranks)


ENGINES: Mapping[str, BuildEngine] = {"zero3": _zero3, "plain": _plain, "single_process": _single_process}
