"""What an attempt says of its end, once."""

from pathlib import Path

from sft.run_folder import RunFolder
from sft.training.attempt_end import read_end, unended_attempt, write_end


def test_only_an_attempt_of_this_start_that_has_not_said_why_it_ended_is_open(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert unended_attempt(run, 1) is None
    run.attempt(2).mkdir(parents=True)
    assert unended_attempt(run, 3) is None
    assert unended_attempt(run, 2) == run.attempt(2)
    write_end(run.attempt(2), "failed", "no room at https://me:canary@host/data")
    assert unended_attempt(run, 2) is None
    assert read_end(run)["why"] == "failed"
    assert "canary" not in read_end(run)["message"]
