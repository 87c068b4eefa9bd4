"""How soon `sft review` shows the first of very many records, and in how much memory.

    OMP_NUM_THREADS=1 python -m benchmarks.construction --review 100000

The records have the lengths of Dolly's, in the words of Python's documentation, as `sft construct` writes them.

    opened      the page's own part, in a process of its own behind its imports: from the file to the first record, with
                the most doubtful ones first, and with a random sample
    command     the whole command, from its start: until it prints the address, and until the first record has come
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.made_data import dolly_pair
from benchmarks.resident_memory import forget_peak, memory_now, memory_peak
from sft.draft import Draft, Provenance
from sft.json_lines import json_line

NUM_TASKS = 16
BOUND = 0.05
_PROVENANCE = {"teacher": "made at http://127.0.0.1:9/v1", "prompts": "0123456789abcdef", "made": "2026-01-01"}
_PARAMETERS = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 1024}
_LIMIT_SECONDS = 300.0


def measure_review(num: int, say: Callable[[str], object]) -> None:
    """Measure with so many records, and say it line by line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "records.jsonl", num)
        for order, options in (("by doubt", []), ("a sample", ["--sample", str(BOUND)])):
            opened = [sys.executable, "-m", "benchmarks.reviewing", str(folder), *options]
            shown = subprocess.run(opened, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            say(f"{'opened':10}{order:10}{num:10,} records  {shown}")
            address, first = _command(folder, options)
            say(f"{'command':10}{order:10}{num:10,} records  {address:6.2f} s until the address, {first:6.2f} s in all")


def _write(path: Path, num: int) -> None:
    rng = np.random.default_rng(3)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num):
            prompt, answer = dolly_pair(rng)
            messages = {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}
            of = Provenance(
                "few_shot",
                parameters=_PARAMETERS,
                seeds=tuple(f"{i:024x}" for i in rng.integers(0, 1 << 60, 5)),
                requests=(f"{number:032x}",),
                num_tokens=1200,
                **_PROVENANCE,
            )
            file.write(json_line(Draft(messages, f"task {number % NUM_TASKS}", of).as_json()))


def _open(folder: Path, bound: float | None) -> None:
    """Say how long it takes, the memory before, and how much more it is at the most."""
    from sft.approval.record_set import find_place  # noqa: PLC0415  (what is imported above is not part of it)
    from sft.review.session import ReviewSession, Setting  # noqa: PLC0415

    forget_peak()
    before, started = memory_now(), time.perf_counter()
    shown = ReviewSession(find_place(folder), "kim", Setting(bound=bound), trust=True).next("a window")
    seconds = time.perf_counter() - started
    assert shown["record"]["texts"]
    print(f"{seconds:6.2f} s  memory {before:4,.0f} + {memory_peak() - before:4,.0f} MiB")


def _command(folder: Path, options: list[str]) -> tuple[float, float]:
    """Seconds until the address, and until the first record."""
    command = [sys.executable, "-m", "launcher", "review", str(folder), "--port", "0", "--reviewer", "kim", *options]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            printed = time.perf_counter() - started
            for name in ("", "page.css", "page.js"):
                urllib.request.urlopen(address + name, timeout=_LIMIT_SECONDS).read()
            asked = urllib.request.Request(
                f"{address}next", json.dumps({"window": "a window"}).encode(), {"Content-Type": "application/json"}
            )
            shown = json.loads(urllib.request.urlopen(asked, timeout=_LIMIT_SECONDS).read())
            assert shown["record"]["texts"]
            return printed, time.perf_counter() - started
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


if __name__ == "__main__":
    _open(Path(sys.argv[1]), float(sys.argv[3]) if len(sys.argv) > 2 else None)
