"""`sft export`: the folder of any kept checkpoint, published or absent; what it cannot do is said in words."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from launcher.cli import main
from sft.atomic_files import read_manifest
from sft.checkpoint.local_storage import checkpoint_path
from sft.checkpoint.safetensors_file import SafetensorsWriter
from sft.evaluation.report import render_report
from sft.ranks.ranks import OneRank
from sft.run_events import read_events
from sft.run_folder import RunFolder, check_of
from sft.training.attempt import begin_attempt
from sft.training.stage_check import check_stage
from sft.verification.run_check import verify_run
from tests.checkpoint.exported import files_of
from tests.checkpoint.storages import StoredBytes
from tests.conftest import SmallRecords
from tests.parity.exported_run import in_this_process, train_run

Sft = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two ranks of ZeRO-3, whose model was checked afterwards, in this process."""
    folder = tmp_path_factory.mktemp("exported")
    run = train_run(folder, tiny_model_dir, small_records, 2, checkpoint={"check_export": False})
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        check_stage(run, run.stage(0, "broad"), begin_attempt(run, OneRank()))
    return run


@pytest.fixture
def sft(capsys: pytest.CaptureFixture[str]) -> Sft:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["export", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


@pytest.mark.long
def test_a_run_checks_its_model_where_it_is_asked_to(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    """The plain program is a process of its own."""
    check_is_told(train_run(tmp_path, tiny_model_dir, small_records, 2))


def test_a_checked_run_verifies_and_its_report_says_so(run: RunFolder) -> None:
    check_is_told(run)
    verified = verify_run(run)
    assert verified.findings == ()
    assert verified.is_finished
    assert "In plain transformers, the model of stage broad is the same as the trained model" in render_report(run)


def check_is_told(run: RunFolder) -> None:
    found = json.loads(check_of(run.stage(0, "broad").model).read_text())
    assert found["is_equal"], found
    assert found["step"] == 4
    (event,) = (e for attempt in run.all_attempts() for e in read_events(attempt) if e.kind == "export")
    assert "the same as the trained model" in event.text


def test_a_check_that_cannot_be_made_costs_nothing(run: RunFolder, tmp_path: Path) -> None:
    """The model that the stage started from is gone."""
    copied = copy_of_run(run, tmp_path)
    stage = copied.stage(0, "broad")
    check_of(stage.model).unlink()
    content = yaml.safe_load(copied.config.read_text())
    content["model"]["path"] = str(tmp_path / "gone")
    copied.config.write_text(yaml.safe_dump(content))
    attempt = begin_attempt(copied, OneRank())
    check_stage(copied, stage, attempt)
    found = json.loads(check_of(stage.model).read_text())
    assert not found["is_equal"]
    assert "there is no folder" in found["not_done"]
    (event,) = read_events(attempt.folder)
    assert "not checked: " in event.text
    check_stage(copied, stage, attempt)  # it is on record, and not tried again
    assert len(read_events(attempt.folder)) == 1


def test_the_folder_of_the_last_checkpoint_is_what_the_run_has_exported_to_the_bit(
    sft: Sft, run: RunFolder, tmp_path: Path
) -> None:
    code, out, err = sft(run.path, "--to", tmp_path / "model")
    assert (code, err) == (0, "")
    assert str(tmp_path / "model") in out
    assert files_of(tmp_path / "model") == files_of(run.stage(0, "broad").model)
    manifest = read_manifest(tmp_path / "model")
    assert (manifest["stage"], manifest["step"], manifest["dtype"]) == ("broad", 4, "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_earlier_step_goes_into_the_run_folder_and_is_found_there_again(sft: Sft, run: RunFolder) -> None:
    assert sft(run.path, "--step", 2)[0] == 0
    folder = run.exports / "0-broad-step-00000002"
    assert files_of(folder)["model.safetensors"] != files_of(run.stage(0, "broad").model)["model.safetensors"]
    code, out, _ = sft(run.path, "--step", 2)
    assert code == 0
    assert "it was there already" in out
    assert verify_run(run).findings == ()
    code, _, err = sft(run.path, "--to", folder)
    assert code == 2
    assert "it holds another model (stage broad, step 2, dtype float32)" in err


def test_a_folder_with_other_files_stays_as_it_is(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    code, _, err = sft(run.path, "--to", tmp_path / "mine")
    assert code == 2
    assert "it holds other files (notes.txt)" in err
    code, _, err = sft(run.path, "--to", tmp_path / "mine" / "notes.txt")
    assert code == 2
    assert "there is a file of that name" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--step", 3], "no checkpoint after 3 steps. It has those after 2, 4"),
        (["--step", "best"], "the run does not say what is best"),
        (["--stage", "wide"], "no such stage. It has broad"),
        (["--endpoint", "http://127.0.0.1:1/v1"], "belong to --check"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(sft: Sft, run: RunFolder, arguments: list[object], text: str) -> None:
    code, _, err = sft(run.path, *arguments)
    assert code == 2
    assert text in err


def copy_of_run(run: RunFolder, folder: Path) -> RunFolder:
    """The run in another place, with all its files."""
    shutil.copytree(run.path, folder / "run")
    return RunFolder(folder / "run")


def test_a_damaged_checkpoint_is_refused_and_stays(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    copied = copy_of_run(run, tmp_path)
    shutil.rmtree(copied.exports, ignore_errors=True)  # of another test
    checkpoint = checkpoint_path(copied.stage(0, "broad").checkpoints, 4)
    file = checkpoint / "rank-00001-of-00002.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    code, _, err = sft(copied.path)
    assert code == 2
    assert "its content is not what was written" in err
    assert checkpoint.is_dir()
    assert not copied.exports.exists()
    assert sft(copied.path, "--step", 2)[0] == 0


def test_best_is_the_step_that_the_stage_has_named(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    copied = copy_of_run(run, tmp_path)
    complete = copied.stage(0, "broad").complete
    best = {"step": 2, "value": 1.0, "score": "loss", "task": None}
    complete.write_text(json.dumps({**json.loads(complete.read_text()), "best": best}))
    assert sft(copied.path, "--step", "best", "--to", tmp_path / "model")[0] == 0
    assert read_manifest(tmp_path / "model")["step"] == 2


def test_a_full_disk_leaves_nothing(sft: Sft, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def fill(self: SafetensorsWriter, name: str, values: object) -> None:
        written.append(name)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SafetensorsWriter, "write", fill)
    code, out, _ = sft(run.path, "--to", tmp_path / "model")
    assert code == 1
    assert "The model cannot be exported: [Errno 28] No space left on device" in out
    assert list(tmp_path.iterdir()) == []


def test_two_exports_into_one_folder_are_one_after_the_other(sft: Sft, run: RunFolder, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".model.lock"):
        code, _, err = sft(run.path, "--to", tmp_path / "model")
    assert code == 2
    assert "another `sft export` writes it at this moment" in err
    assert not (tmp_path / "model").exists()
    assert sft(run.path, "--to", tmp_path / "model")[0] == 0


def test_from_object_storage_it_is_the_same(sft: Sft, run: RunFolder, tmp_path: Path, in_memory: StoredBytes) -> None:
    copied = copy_of_run(run, tmp_path)
    stage = copied.stage(0, "broad")
    for path in stage.checkpoints.rglob("*"):
        if path.is_file():
            name = path.relative_to(stage.checkpoints)
            in_memory.files.pipe_file(f"{in_memory.root}/0-broad/{name}", path.read_bytes())
    shutil.rmtree(stage.checkpoints)
    content = yaml.safe_load(copied.config.read_text())
    content["checkpoint"]["dir"] = in_memory.url
    copied.config.write_text(yaml.safe_dump(content))
    assert sft(copied.path, "--to", tmp_path / "model")[0] == 0
    assert files_of(tmp_path / "model") == files_of(stage.model)


def test_without_a_checkpoint_the_model_that_is_there_is_named_and_can_be_checked(
    sft: Sft, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    copied = copy_of_run(run, tmp_path)
    stage = copied.stage(0, "broad")
    shutil.rmtree(stage.checkpoints)
    code, _, err = sft(copied.path)
    assert code == 2
    assert f"There is the model at the stage's end already: {stage.model}" in err
    check_of(stage.model).unlink()
    code, out, _ = sft(stage.model, "--check")
    assert code == 0, out
    assert "the checkpoint is gone" in out
    assert json.loads(check_of(stage.model).read_text())["is_equal"]
    code, _, err = sft(stage.model)
    assert code == 2
    assert "is a model already" in err
    code, _, err = sft(tmp_path)
    assert code == 2
    assert "is not the folder of a run" in err
