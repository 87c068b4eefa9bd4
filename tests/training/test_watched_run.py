"""What an attempt says of its end, once."""

from pathlib import Path

from sft.attempt_record import End, write_end
from sft.run_folder import RunFolder
from sft.training.attempt_end import end_of_last_attempt, unended_attempt


def test_only_an_attempt_of_this_start_that_has_not_said_why_it_ended_is_open(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert unended_attempt(run, 1) is None
    run.attempt(2).path.mkdir(parents=True)
    assert unended_attempt(run, 3) is None
    assert unended_attempt(run, 2) == run.attempt(2)
    write_end(run.attempt(2), End("failed", "no room at https://me:canary@host/data"))
    assert unended_attempt(run, 2) is None
    assert end_of_last_attempt(run).why == "failed"
    assert "canary" not in end_of_last_attempt(run).message
