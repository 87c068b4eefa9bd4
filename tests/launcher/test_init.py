"""`sft init` writes a config that plans, prepares and trains as it is, and asks on a terminal alone."""

import os
import pty
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from launcher.cli import main
from launcher.plan import forecast_job, plan_job
from sft.job_config import load_job
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords
from tests.distributed.launch import run_ranks

Init = Callable[..., int]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    """`sft init` in a folder of its own, without questions."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["init", *map(str, words), "--yes"])


def test_its_config_is_planned_prepared_and_trained(
    init: Init, tmp_path: Path, tiny_model_dir: Path, small_records: SmallRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(small_records.instructions, small_records.prompts, "--model", tiny_model_dir, "--name", "first") == 0
    path = tmp_path / "first.yaml"
    text = path.read_text()
    assert "format: instruction" in text
    assert "4 tasks: copy, reverse, count, sort" in text
    assert "512 positions" in text
    job = load_job(path)
    assert [source.format for source in job.sft.data.sources] == ["instruction", "prompt_completion"]
    assert job.sft.data.max_len_tokens == 256, "the power of two that covers the examples"
    assert forecast_job(job).model is not None
    assert plan_job(job).stages[0].empty_packs_per_step == 0
    folders = [f"data.cache_dir={tmp_path / 'cache'}", f"run.dir={tmp_path / 'run'}"]
    short = ["stages.sft.budget={steps: 2}", "checkpoint.every_epochs=", "evaluate.every_epochs="]
    config = load_job(path, [*short, *folders]).sft
    workload = prepare_workload(config)[0].as_json()
    assert run_ranks(1, "run_jobs", {"jobs": [(config.model_dump(mode="json", by_alias=True), workload)]}) == [True]
    assert (RunFolder(config.run.dir).stage(0, "sft").model / "model.safetensors").is_file()


def test_a_file_is_overwritten_only_where_that_was_said(
    init: Init, tmp_path: Path, small_records: SmallRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (small_records.prompts, "--model", "owner/model", "--offline", "-o", "here.yaml")
    (tmp_path / "here.yaml").write_text("mine\n")
    assert init(*words) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "here.yaml").read_text() == "mine\n"
    assert init(*words, "--force") == 0
    assert load_job(tmp_path / "here.yaml").sft.model.path == "owner/model"


def test_what_is_not_known_is_said_in_a_comment(
    init: Init, tmp_path: Path, small_records: SmallRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(small_records.prompts, "--model", "owner/model", "--offline", "--gpus", 4) == 0
    text = (tmp_path / "prompts.yaml").read_text()
    for unknown in ("its size is not known", "how long the examples are is not known", "the model's size is not known"):
        assert unknown in text
    assert load_job(tmp_path / "prompts.yaml").cluster.workers == 4


def test_a_hub_that_did_not_answer_is_not_asked_again(
    init: Init, small_records: SmallRecords, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> None:
        pytest.fail("the tokenizer is asked for")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", ask)
    assert init(small_records.prompts, "--model", "owner/model") == 0
    assert "there is no tokenizer on this machine" in capsys.readouterr().out
    assert init("nowhere.jsonl", "--model", "owner/model") == 2
    assert capsys.readouterr().out == "", "data that is not there is said first"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "sft init needs DATA and --model MODEL"),
        (("{data}",), "sft init needs --model MODEL"),
        (("nowhere.jsonl", "--model", "m"), "nowhere.jsonl"),
        (("{data}", "--model", "./nowhere"), "there is no ./nowhere"),
        (("{odd}", "--model", "m"), "--format NAME --columns NAME=COLUMN"),
        (("{odd}", "--model", "m", "--format", "alpaca"), "must be auto, instruction"),
        (("{data}", "--model", "m", "--task", "kind"), "no record has a column 'kind'"),
        (("{data}", "--model", "m", "--name", "a b"), "'a b' may hold letters"),
        (("{data}", "--model", "m", "--gpus", "1", "--gpu", "h1000"), "h1000 is not known here"),
    ],
)
def test_a_mistake_is_said_in_a_message(
    init: Init,
    tmp_path: Path,
    small_records: SmallRecords,
    words: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "odd.jsonl").write_text('{"text": "a", "code": "b"}\n' * 3)
    files = {"data": small_records.prompts, "odd": tmp_path / "odd.jsonl"}
    assert init(*(word.format_map(files) for word in words), "--offline") == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.yaml"))


def test_columns_that_are_named_are_read(init: Init, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.jsonl").write_text('{"text": "a", "code": "b"}\n' * 3)
    columns = ("--format", "prompt_completion", "--columns", "prompt=text,completion=code")
    assert init("odd.jsonl", "--model", "owner/model", "--offline", *columns) == 0
    (source,) = load_job(tmp_path / "odd.yaml").sft.data.sources
    assert source.columns == {"prompt": "text", "completion": "code"}


@contextmanager
def terminal(answers: list[str]) -> Iterator[None]:
    """A real terminal in the place of stdin and stdout, on which the answers are typed."""
    ours, theirs = pty.openpty()
    with open(theirs, closefd=False) as reading, open(theirs, "w", closefd=False) as writing:
        reader = threading.Thread(target=_drain, args=(ours,))
        reader.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", reading)
            patch.setattr("sys.stdout", writing)
            os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
            yield
    os.close(theirs)
    reader.join()
    os.close(ours)


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        return


def test_on_a_terminal_it_asks_for_what_was_not_said(
    tmp_path: Path, small_records: SmallRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECORDS", str(small_records.instructions.parent))
    answers = [f"$RECORDS/{small_records.instructions.name}", "owner/model", "asked", "2", "l4", "none"]
    with terminal(answers):
        assert main(["init", "--offline"]) == 0
    job = load_job(tmp_path / "asked.yaml")
    assert (job.sft.run.name, job.cluster.workers, job.cluster.gpu) == ("asked", 2, "l4")
    assert job.sft.data.sources[0].task == "instructions", "one task, as was answered"
