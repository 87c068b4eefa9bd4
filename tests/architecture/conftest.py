"""What the tests of the project's shape look at."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file that git tracks or would add, relative to the root."""
    return list_files("--cached", "--others")


@pytest.fixture(scope="session")
def ignored_files() -> list[Path]:
    """Every file that git would leave out of a commit, relative to the root."""
    return list_files("--others", "--ignored")


def list_files(*which: str) -> list[Path]:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--exclude-standard", *which, "--", ".", ":!.venv"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in names.split("\0") if name and (ROOT / name).is_file()]
