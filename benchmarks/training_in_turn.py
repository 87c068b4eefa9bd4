"""`torchrun -m sft.training`, each of whose steps waits for its turn (`benchmarks.turns`).

    torchrun … -m benchmarks.training_in_turn CONFIG.yaml

Nothing else is changed: a step is all that the program does from one update to the next, with reading and recording.
"""

import os
import sys
from typing import Any

from benchmarks.turns import Turn
from sft.engine.zero3 import Zero3Engine
from sft.training.__main__ import main


def take_turns() -> None:
    """From here on each step of the engine waits for its turn."""
    turn, train, fed = Turn(), Zero3Engine.train_step, [0]

    def train_step(engine: Zero3Engine, micro_batches: Any, num_supervised_tokens: int, lr: float) -> Any:
        if not turn.ask(fed[0]):
            os._exit(0)  # enough was measured: there is nothing to save
        fed[0] = sum(batch.num_tokens for batch in micro_batches)
        return train(engine, micro_batches, num_supervised_tokens, lr)

    Zero3Engine.train_step = train_step  # type: ignore[method-assign]


if __name__ == "__main__":
    take_turns()
    sys.exit(main(sys.argv[1:]))
