"""What Triton's interpreter runs is also what its compiler takes: the compiler needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path

from tests.model.kernel_table import TABLE


def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.model.compile_kernels"]
    root = TABLE.parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    expected = {"norm_forward", "norm_backward", "turn", "gate_forward", "gate_backward"}
    assert set(done.stdout.split()) == expected
