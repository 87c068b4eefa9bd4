"""Instruction tuning: data, balance, ZeRO-3 training, checkpoints, evaluation. Knows nothing of Ray or Slurm.

training ▶ checkpoint, evaluation ▶ engine ▶ model ▶ data ▶ schema, config, step_plan, … (imports go this way only)
"""

import time

__version__ = "0.1.0"

STARTED = time.monotonic()
"""About when this process began: a stop that was requested earlier was not meant for this process."""
