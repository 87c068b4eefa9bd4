"""Records are read as the config's source for their file reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from sft.approval.record_set import find_place
from sft.config import DataConfig
from sft.data.formats.formatting import format_record
from sft.errors import UserError
from sft.review.refusals import Refused
from sft.review.session import ReviewSession, Setting
from sft.review.trained_form import TrainedForm
from sft.schema import Conversation, JsonObject
from tests.review.served import record, write_records

COLUMNS = {"instruction": "prompt", "input": "context", "output": "completion"}
ODD = {"prompt": "Sort.", "context": "b a", "completion": "a b", "topic": "sorting"}
TWICE = {"messages": [{"role": "user", "content": "q"}, *record("q", "a")["messages"]]}


def data_of(path: Path | str, **fields: Any) -> DataConfig:
    return DataConfig.model_validate({"sources": [{"name": "s", "path": str(path), **fields}]})


def trained(form: TrainedForm, fields: JsonObject) -> Conversation:
    found = form.as_records(fields)
    assert found is not None
    (one,) = found[0]
    conversation = format_record(one, found[1])
    assert isinstance(conversation, Conversation)
    return conversation


def test_the_source_of_the_config_says_what_the_columns_mean(tmp_path: Path) -> None:
    place = find_place(write_records(tmp_path, [ODD]))
    form = TrainedForm(place.records, data_of(place.records, format="instruction", columns=COLUMNS))
    conversation = trained(form, ODD)
    assert [message.content for message in conversation.messages] == ["Sort.\n\nb a", "a b"]
    assert conversation.task == "s", "a source without a task names it"
    assert "completion" in form.why_not({**ODD, "completion": ""})
    session = ReviewSession(place, "kim", Setting(), form=form)
    shown = session.next("w")["record"]
    with pytest.raises(Refused, match="could not be trained on"):
        session.decide({"name": "1", "record": shown["id"], "verdict": "edit", "texts": {"completion": ""}}, "w")
    guessed = TrainedForm(place.records)
    assert (guessed.as_records(ODD), guessed.why_not({}), guessed.answer(ODD)) == (None, "", None)


@pytest.mark.parametrize(
    ("path", "fields", "task"),
    [
        ("records.jsonl", {"task": {"column": "topic"}}, "sorting"),
        ("records.jsonl", {"task": "always this"}, "always this"),
        (".", {"constructed": True}, "s"),
        (".", {}, "s"),
        ("*.jsonl", {}, "s"),
        ("other.jsonl", {"task": "another"}, None),
    ],
)
def test_the_source_is_the_one_that_reads_the_file(
    tmp_path: Path, path: str, fields: dict[str, Any], task: str | None
) -> None:
    place = find_place(write_records(tmp_path, [ODD]))
    form = TrainedForm(place.records, data_of(tmp_path / path, format="instruction", columns=COLUMNS, **fields))
    assert form.is_configured == (task is not None)
    assert task is None or trained(form, ODD).task == task


def test_columns_of_all_first_records_count(tmp_path: Path) -> None:
    records = [{"instruction": "q", "output": "a"}, {"instruction": "q", "context": "c", "output": "a"}]
    form = TrainedForm(find_place(write_records(tmp_path, records)).records)
    assert [message.content for message in trained(form, records[1]).messages] == ["q\n\nc", "a"]


def test_what_training_repairs_can_be_trained(tmp_path: Path) -> None:
    path = find_place(write_records(tmp_path, [TWICE])).records
    data = data_of(path).model_copy(update={"turns": "repair"})
    assert TrainedForm(path).why_not(TWICE)
    assert TrainedForm(path, data).why_not(TWICE) == ""


def test_each_instance_of_a_task_is_an_example(tmp_path: Path) -> None:
    task = {"Definition": "Sort.", "Instances": [{"input": text, "output": text} for text in "ab"]}
    form = TrainedForm(find_place(write_records(tmp_path, [task])).records)
    found = form.as_records(task)
    assert found is not None
    assert len(found[0]) == 2
    assert form.why_not(task) == ""


def test_a_source_whose_columns_are_not_there_is_said(tmp_path: Path) -> None:
    path = find_place(write_records(tmp_path, [ODD])).records
    with pytest.raises(UserError, match="there is no column 'instruction'"):
        TrainedForm(path, data_of(path, format="instruction"))


def test_the_command_reads_as_its_config_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path, [ODD])
    (tmp_path / "records.jsonl").rename(tmp_path / "my.jsonl")
    for name, answer in (("my.jsonl", "a b"), ("other.jsonl", "")):
        source = {"name": "s", "path": str(tmp_path / name), "format": "instruction", "columns": COLUMNS}
        run = {"name": "r", "dir": str(tmp_path / "r")}
        config = {
            "run": run,
            "model": {"path": str(tmp_path / "model")},
            "data": {"sources": [source]},
            "stages": [{"name": "a", "budget": {"steps": 1}, "optimizer": {"lr": 1e-4}}],
        }
        (tmp_path / "c.yaml").write_text(json.dumps(config))
        command = ["review", str(tmp_path / "my.jsonl"), "--config", str(tmp_path / "c.yaml")]
        assert main([*command, "--export", "label-studio", str(tmp_path / "out.jsonl")]) == 0
        assert json.loads((tmp_path / "out.jsonl").read_text())["data"]["answer"] == answer
        assert ("No source of" in capsys.readouterr().err) == (not answer)
