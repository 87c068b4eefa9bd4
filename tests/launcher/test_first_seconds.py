"""Ctrl-C and SIGTERM in the first seconds of `sft train`, and of its second start, whose Ray begins early."""

import os
import signal
import subprocess
import time
from itertools import product
from pathlib import Path

import psutil
import pytest
import yaml

from sft.run_folder import RunFolder
from tests.cluster.running import ROOT, SFT, environment, run_to_end
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job
from tests.ray_folder import ray_folder

FIRST, SECOND = (0.6, 1.2, 3), (1, 3, 5, 8, 12)
"""Seconds, behind Python's own beginning. In the first start it looks at the model; in one behind `sft prepare` Ray
starts meanwhile."""
ENDS = {
    # Python may also end itself by Ctrl-C's signal, which shells show as the same.
    signal.SIGINT: ((130, -signal.SIGINT), "interrupted; the same command goes on from what is saved"),
    signal.SIGTERM: ((143,), "Ended by SIGTERM; no step is lost by it. The same command goes on."),
}
STOPPED = "Stopped on request, with a checkpoint. The same command goes on."


@pytest.mark.long
def test_it_ends_with_one_sentence_leaves_no_process_and_the_same_command_goes_on(
    tmp_path: Path, tiny_model_dir: Path, small_records: SmallRecords
) -> None:
    config, run = tmp_path / "early.yaml", RunFolder(tmp_path / "early")
    content = two_stage_job("early", tmp_path, tiny_model_dir, small_records, {"broad": 4, "words": 400})
    config.write_text(yaml.safe_dump({**content, "cluster": {"workers": 1}}))
    command = [*SFT, "train", str(config)]
    with ray_folder() as folder:
        for seconds_before in (FIRST, SECOND):
            for number, seconds in product(ENDS, seconds_before):
                check_end(command, number, seconds, folder)
                assert not run.lock.exists()
                assert not run.stop_file.exists()
            run_to_end([*SFT, "prepare", str(config)])
    run_to_end([*command, "stages.words.budget.steps=8"])
    run_to_end([*SFT, "verify", str(run.path)])


def check_end(command: list[str], number: signal.Signals, seconds: float, folder: Path) -> None:
    """A terminal's Ctrl-C goes to all processes of its group, a scheduler's SIGTERM to the first."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment() | {"TMPDIR": str(folder)},
        start_new_session=True,
    )
    time.sleep(seconds)
    started = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    printed, _ = process.communicate(timeout=60)
    assert "Traceback" not in printed, printed
    assert "Exception" not in printed, printed
    codes, said = ENDS[number]
    if process.returncode == 3:  # it trained already
        codes, said = (3,), STOPPED
    assert process.returncode in codes, printed
    assert printed.splitlines()[-1] == said
    _, left = psutil.wait_procs(started, 20)
    assert not left, left
