"""What lies in the working folder is not taken for the program, or for a package that it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from sft.own_process import own_environment, own_module


@pytest.fixture
def _others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder has packages of the names of ours and of a third party's."""
    for name in ("sft", "tokenizers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('of others')")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_others")
@pytest.mark.parametrize("command", [own_module("sft.errors"), [*own_module("")[:-2], "-c", "import sft, tokenizers"]])
def test_a_module_comes_from_where_this_process_has_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["", *sys.path])  # as that of `python -m`
    done = subprocess.run(command, env=own_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
