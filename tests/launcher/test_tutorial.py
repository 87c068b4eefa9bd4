"""docs/TUTORIAL.md shows what its commands print: all of them are run here, in order, with a tiny model.

Numbers, and what the model itself says, differ with it. All other words are compared; `…` in the page is any text.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "TUTORIAL.md").read_text(encoding="utf-8")

OF_THE_MODEL = [
    r"^─+ an example of .*?(?=^model  )",  # what it answers, and which answer is the shortest
    r"^<\|im_start\|>system↵$.*?<\|im_end\|>↵$",  # what its template puts in front
    r"^overlap: .*?(?=^Mixture)",  # which runs of tokens are alike, and which task has most of them
    r"(?<=peated\n).*?(?=^ all )",
    r"^ parameters, its part .*?(?=^ in all)",  # what takes no memory has no line
    r"^ host memory: blocks .*?(?=^ host memory: process)",
    r"^sft  step .*?(?=^Held-out )",  # how often a line is due
]


def commands() -> list[tuple[str, str]]:
    """(command, what the page says that it prints), in order."""
    blocks = "\n".join(re.findall("^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    parts = re.split(r"^\$ (.*)\n", blocks, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def comparable(text: str) -> str:
    """Its words, with `#` for each number, size and time, without the lines of tables."""
    text = re.sub(r"[━─┏┓┡┩┳╇└┘┴┃│]+", " ", text)
    text = re.sub(r"[-+−]?\d[\d,.:]*[kM%]*(?<![.:,])( (s|min|bytes|[kMG]i?B)\b)?", "#", text)
    return " ".join(text.split())


def as_pattern(expected: str) -> str:
    for differs in OF_THE_MODEL:
        expected = re.sub(differs, "…", expected, flags=re.MULTILINE | re.DOTALL)
    return ".*?".join(re.escape(comparable(part)) for part in expected.split("…"))


@pytest.mark.long
def test_every_command_prints_what_the_page_says(tmp_path: Path, tiny_model_dir: Path) -> None:
    home = tmp_path / "ada"
    folder = home / "tutorial"
    shutil.copytree(tiny_model_dir, folder / "quickstart" / "model")
    (script,) = re.findall("^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "make_questions.py").write_text(script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "110", "RAY_ADDRESS": ""}
    assert len(commands()) > 8
    differing = []
    for command, expected in commands():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**os.environ, **own, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        printed = done.stdout.replace(str(home), "/data/ada")
        assert done.returncode == 0, f"$ {command}\n{printed}"
        if not re.fullmatch(as_pattern(expected), comparable(printed)):
            differing.append(f"$ {command}\n{printed}")
    assert not differing, "\n".join(differing)
