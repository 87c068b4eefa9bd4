"""What is wrong with `from` is said with all else that is wrong. A run that does begin so: tests/chaos."""

from pathlib import Path

import pytest

from sft.config_file import ConfigError
from sft.job_config import load_job
from sft.run_folder import RunFolder

CONFIG = """\
run: {name: a, dir: runs/a}
from:
  run: RUN
  stage: STAGE
data: {sources: [{name: only, path: owner/data}], max_len_token: 512}
stages:
  - name: late
    mixture: {replay: {words: 0.5}}
    budget: {steps: 1}
    optimizer: {lr: 1.0e-3}
cluster: {workers: 0}
"""


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "old")
    run.path.mkdir()
    run.manifest.write_text('{"versions": {}}')
    mixture = "mixture: {tasks: null, rates: natural}"
    run.config.write_text(
        f"model: {{path: owner/model}}\ncheckpoint: {{dir: null}}\nstages: [{{name: words, {mixture}}}]\n"
    )
    return run


@pytest.mark.parametrize(
    ("run", "stage", "first"),
    [
        ("{old}/nowhere", "words", ("from.run", 3, "name one that `sft train` wrote")),
        ("$NOWHERE/old", "words", ("from.run", 3, "set it, or write the path out")),
        ("~nobody-of-here/old", "words", ("from.run", 3, "set it, or write the path out")),
        ("{old}", "wrds", ("from.stage", 4, "name one of: words")),
        ("{old}", "words", ("from.stage", 4, "train it first: it has no checkpoint yet")),
        ("{old}", "words\n  step: 7", ("from.step", 5, "train it first: it has no checkpoint yet")),
    ],
)
def test_it_is_one_problem_among_all_of_the_config_with_its_line(
    old: RunFolder, tmp_path: Path, run: str, stage: str, first: tuple[str, int, str]
) -> None:
    path = tmp_path / "new.yaml"
    path.write_text(CONFIG.replace("RUN", run.format(old=old.path)).replace("STAGE", stage))
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    problems = caught.value.problems
    # Neither the model nor the stages of the other run are missed beside it.
    assert [problem.path for problem in problems] == [first[0], "data.max_len_token", "cluster.workers"]
    assert problems[0].way_out == first[2]
    assert f"  line {first[1]}: {first[0]}: " in str(caught.value)


def test_an_override_of_it_is_quoted(old: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text(CONFIG.replace("RUN", str(old.path)).replace("STAGE", "words"))
    with pytest.raises(ConfigError, match="has no stage of this name, in 'from.stage=wrds'"):
        load_job(path, ["from.stage=wrds"])
