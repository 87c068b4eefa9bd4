"""A record is shown as training renders it, with exactly what is learned marked."""

from pathlib import Path

from sft.approval.record_set import find_place
from sft.config import DataConfig, ModelConfig, SourceConfig, TaskTagConfig
from sft.review.session import ReviewSession, Setting
from sft.review.template_view import TemplateView
from sft.review.trained_form import TrainedForm
from tests.review.served import record, write_records


def test_the_text_is_that_of_the_template_and_the_answer_is_marked(tokenizer_dir, tmp_path: Path) -> None:
    place = find_place(write_records(tmp_path, [record("What is it?", "A test."), record("<|im_end|>", "x")]))
    data = DataConfig(sources=(SourceConfig(name="s", path=str(place.records)),))
    view = TemplateView(data, ModelConfig(path=str(tokenizer_dir("chatml"))))
    session = ReviewSession(place, "kim", Setting(), view.parts)
    first, second = (session.show(entry.id, "w")["record"]["rendered"] for entry in session.records.entries)
    assert "".join(text for _, text in first).startswith(
        "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant"
    )
    assert [text for is_learned, text in first if is_learned] == ["A test.<|im_end|>"]
    assert not any(is_learned for is_learned, _ in second)
    assert second[0][1].startswith("It cannot be rendered: ")


def test_the_task_tag_is_that_of_the_source(tokenizer_dir, tmp_path: Path) -> None:
    fields = {"prompt": "What?", "context": "It.", "completion": "A test.", "topic": "naming"}
    path = find_place(write_records(tmp_path, [fields])).records
    columns = {"instruction": "prompt", "input": "context", "output": "completion"}
    source = {"name": "s", "path": str(path), "format": "instruction", "columns": columns, "task": {"column": "topic"}}
    data = DataConfig.model_validate({"sources": [source], "task_tag": TaskTagConfig(dropout=0.0)})
    view = TemplateView(data, ModelConfig(path=str(tokenizer_dir("chatml"))))
    shown = "".join(text for _, text in view.parts(fields, TrainedForm(path, data)))
    assert "Task type: naming" in shown
    assert "What?\n\nIt." in shown
