"""What a stage had published at its end is kept when it is extended, whenever that is interrupted."""

from pathlib import Path

import pytest

from sft.atomic_files import write_json
from sft.config import CheckpointConfig
from sft.errors import UserError
from sft.run_folder import RunFolder, StageFolder
from sft.training.extension import set_end_aside

HERE = CheckpointConfig()


def finished(folder: Path) -> tuple[RunFolder, StageFolder]:
    run = RunFolder(folder)
    stage = run.stage(0, "broad")
    for path in (stage.model, stage.checkpoints / "step-00000007"):
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "manifest.json", {"of": path.name})
    write_json(stage.complete, {"num_steps": 7})
    write_json(run.evaluations / "0-broad.json", {"loss": 1})
    (run.evaluations / "0-broad.answers.jsonl").write_text("{}\n")
    return run, stage


def kept(run: RunFolder) -> set[str]:
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    return {name for name in names if "checkpoints" not in name}


ASIDE = {
    "stages/0-broad/model-step-00000007/manifest.json",
    "stages/0-broad/stage-step-00000007.json",
    "evaluations/0-broad-step-00000007.json",
    "evaluations/0-broad-step-00000007.answers.jsonl",
}


def test_all_of_it_is_kept_under_its_steps_and_the_stage_is_under_way(tmp_path: Path) -> None:
    run, stage = finished(tmp_path)
    set_end_aside(run, HERE, stage)
    assert kept(run) == ASIDE
    set_end_aside(run, HERE, stage)
    assert kept(run) == ASIDE, "a stage under way stays as it is"
    # It was not extended after all, ended as before, and is extended now.
    finished(tmp_path)
    set_end_aside(run, HERE, stage)
    assert kept(run) == ASIDE


@pytest.mark.parametrize("num_done", [1, 2, 3])
def test_a_kill_in_between_is_made_good_by_the_next_start(
    tmp_path: Path, num_done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, stage = finished(tmp_path)
    rename, done = Path.rename, []

    def rename_some(path: Path, target: Path) -> Path:
        if len(done) == num_done:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_some)
        with pytest.raises(KeyboardInterrupt):
            set_end_aside(run, HERE, stage)
    assert stage.complete.is_file()
    set_end_aside(run, HERE, stage)
    assert kept(run) == ASIDE


def test_without_a_checkpoint_nothing_is_touched(tmp_path: Path) -> None:
    run, stage = finished(tmp_path)
    (stage.checkpoints / "step-00000007" / "manifest.json").unlink()
    before = kept(run)
    with pytest.raises(UserError, match=r"keeps no checkpoint .*Add a stage after it instead"):
        set_end_aside(run, HERE, stage)
    assert kept(run) == before
