"""Where the time goes from `sft train` to the first step, with prepared data: by process, and by what was reached when.

    python -m benchmarks.startup MODEL_DIR DATA.jsonl --runs 3

Each run is started twice. The first start has to look at the model; the second finds what was found, stopped at its
checkpoint, and goes on there.

`begins` is when a process was started, in seconds after the command; `CPU` is what it and its threads have computed up
to the first step. Processes that computed less than a fifth of a second are added up. CPU seconds hardly depend on what
else the machine does, wall times do: on two cores, the first step cannot come before half of all CPU seconds.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.recovery import Job, build_config, metrics, prepare, read_options, start_training
from sft.run_events import read_events
from sft.run_folder import RunFolder

LEAST_CPU_SECONDS = 0.2
PAUSE_SECONDS = 0.05


class Seen(NamedTuple):
    """One process."""

    begins: float
    cpu: float
    name: str


def main() -> None:
    options = read_options(__doc__)
    for run in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            job = Job(options.model, options.data, options.pack_len)
            config = prepare(build_config(job, Path(folder)), Path(folder))
            for attempt in (1, 2):
                measure(run + 1, attempt, config)


def measure(number: int, attempt: int, config: Path) -> None:
    run = RunFolder(config.parent / "run")
    started = time.time()
    driver = start_training(config)
    seen: dict[int, Seen] = {}
    try:
        while not (lines := [line for line in metrics(run) if line["attempt"] == attempt]):
            if driver.poll() is not None:
                raise SystemExit(config.with_name("log").read_text())
            look(psutil.Process(driver.pid), started, seen)
            time.sleep(PAUSE_SECONDS)
        run.stop_file.touch()
        driver.wait(120)
    finally:
        driver.kill()
        driver.wait()
    first_step = lines[0]["time"] - started
    total = sum(process.cpu for process in seen.values())
    print(f"\nrun {number}, start {attempt}: first step after {first_step:.1f} s; {total:.1f} s of CPU in all")
    print(f"{'begins':>8} {'CPU':>6}  process")
    small = 0.0
    for process in sorted(seen.values()):
        if process.cpu < LEAST_CPU_SECONDS:
            small += process.cpu
        else:
            print(f"{process.begins:8.2f} {process.cpu:6.2f}  {process.name}")
    print(f"{'':8} {small:6.2f}  all others")
    began = json.loads(run.attempt(attempt).began.read_text())["time"]
    reached = {"attempt begun": began, "first step": lines[0]["time"]}
    of_first = [event for event in read_events(run.attempt(attempt)) if event.rank == 0]
    reached |= {f"{event.kind}: {event.text}": event.time for event in of_first}
    for what, at in sorted(reached.items(), key=lambda item: item[1]):
        print(f"{at - started:8.2f} {'':6}  {what[:90]}")


def look(driver: psutil.Process, started: float, seen: dict[int, Seen]) -> None:
    """Update what is known of the driver and all that it has started."""
    try:
        processes = [driver, *driver.children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        try:
            times, name = process.cpu_times(), short_name(process.cmdline())
            seen[process.pid] = Seen(process.create_time() - started, times.user + times.system, name)
        except psutil.Error:
            continue


def short_name(command: list[str]) -> str:
    """Of a Python module what is behind -m, of Ray's programs the file."""
    if "-m" in command:
        return " ".join(command[command.index("-m") + 1 :])[:60]
    words = [Path(word).name for word in command if not word.startswith("-")]
    return " ".join(words[:3])[:60]


if __name__ == "__main__":
    main()
