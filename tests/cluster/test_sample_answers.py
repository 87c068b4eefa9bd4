"""A job that is trained and whose sample answers cannot be written: it ends, and says so."""

import subprocess

import pytest
import yaml

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import SFT, started, wait_until


@pytest.mark.long
def test_answers_that_cannot_be_written_do_not_start_the_training_again(write_config: WriteConfig) -> None:
    config = write_config("answers")
    content = yaml.safe_load(config.read_text())
    content["stages"][1]["budget"] = {"steps": 3}
    cluster = {"workers": 1, "preflight": False}
    config.write_text(yaml.safe_dump({**content, "cluster": cluster, "evaluate": {"sample_answers": 1}}))
    run = RunFolder(config.with_suffix(""))
    with started([*SFT, "train", str(config)], subprocess.PIPE) as driver:
        try:
            model = run.stage(1, "words").model / "config.json"
            wait_until(model.is_file, 200, "no model was published")
            model.unlink()
            said, _ = driver.communicate(timeout=180)
        finally:
            driver.kill()
    assert "All is trained, but the sample answers are not written:" in said
    assert driver.returncode == 1
    assert "Traceback" not in said
    assert run.latest_attempt() == 1
