"""DeepSpeed is imported without what is not used here, and is the same otherwise."""

import subprocess
from pathlib import Path

from tests.forked_ranks import warm_command

# In a fork of the process that has imported it as ranks do (`tests.zygote`).
CODE = """
import sys
import torch
from deepspeed.runtime import compiler
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
assert "sft.engine.zero3" in sys.modules
assert "mlflow" not in sys.modules
assert "torch._inductor.compile_fx" not in sys.modules, "torch.compile was called"
assert compiler.compile() is torch.compile
"""


def test_nothing_is_compiled_and_mlflow_is_not_looked_for(tmp_path: Path) -> None:
    script = tmp_path / "looks.py"
    script.write_text(CODE)
    done = subprocess.run(warm_command(str(script)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
