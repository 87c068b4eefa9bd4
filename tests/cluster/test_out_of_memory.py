"""A foreign process takes the memory of the machine: Ray ends what it can find, and the job goes on by itself.

The process is real, and may take no more than its rlimit. The machine need not be full for it: Ray counts its node as
out of memory where as much is used as is used now, and half of the process's memory more.
"""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import ROOT, SFT, environment, run_to_end, wait_for_step, wait_until

HOG_BYTES = 4 * 1024**3
HOG = """
import resource, sys
num_bytes = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (num_bytes + 2**30, num_bytes + 2**30))
taken = bytearray(num_bytes)
taken[::4096] = bytes(1) * len(taken[::4096])
sys.stdin.read()
"""


@pytest.mark.long
def test_a_job_whose_node_runs_out_of_memory_goes_on_by_itself(write_config: WriteConfig, tmp_path: Path) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 3 * HOG_BYTES:
        pytest.skip(f"{memory.available >> 30} GiB are free")
    config = write_config("out-of-memory")
    run = RunFolder(config.with_suffix(""))
    job_bytes = 3 * 1024**3
    threshold = (memory.total - memory.available + job_bytes + HOG_BYTES / 2) / memory.total
    settings = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    command = [*SFT, "train", str(config), "cluster.workers=1", "cluster.max_failures=-1"]
    command += ["stages.words.budget.steps=120"]
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        variables = {**environment(), **settings}
        driver = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=variables)
    try:
        wait_for_step(run, attempt=1, step=3, process=driver)
        hog = subprocess.Popen([sys.executable, "-c", HOG, str(HOG_BYTES)], stdin=subprocess.PIPE)
        try:
            wait_until(lambda: "out of memory" in log.read_text().replace("\n", " "), 100, "Ray has not seen it")
        finally:
            hog.kill()
            hog.communicate()
        assert driver.wait(200) == 0, log.read_text()[-3000:]
    finally:
        driver.kill()
        driver.wait()
    text = log.read_text()
    assert "Traceback" not in text
    assert run.latest_attempt() > 1
    run_to_end([*SFT, "verify", str(run.path)])
