"""Which module may import which: the contracts of pyproject.toml, and what they cannot see."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "deepspeed", "ray")


def test_the_contracts_hold(root):
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint_imports, "--no-logo"], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# The contracts read imports; a package's __init__ and third parties bring in more at run time.
@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("sft.config_file, launcher.plan", HEAVY),
        ("launcher.cli", (*HEAVY, "transformers", "datasets")),
        ("launcher.driver", ("torch", "deepspeed", "transformers", "datasets")),
        # The workers wait for what the controller imports, which is this.
        ("launcher.cluster.trainer", ("torch", "deepspeed", "transformers", "datasets")),
        # What asks served models takes a worker a fifth of a second, and few jobs have a judge.
        ("sft.training.loop", ("ray", "aiohttp")),
    ],
)
def test_importing_brings_in_nothing_heavy(root, modules, absent):
    code = f"import sys, {modules}; sys.exit(' '.join(name for name in {absent} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stderr.strip() == ""
