"""DeepSpeed is imported without what is not used here, and is the same otherwise."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from sft.engine.lean_deepspeed import lean_deepspeed
with lean_deepspeed():
    import sft.engine.zero3
assert "mlflow" not in sys.modules
import torch
from deepspeed.runtime import compiler
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
assert "torch._inductor.compile_fx" not in sys.modules, "torch.compile was called"
assert compiler.compile() is torch.compile
"""


def test_nothing_is_compiled_and_mlflow_is_not_looked_for() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
