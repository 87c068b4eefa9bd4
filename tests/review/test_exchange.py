"""What other tools are given comes back as decisions, once."""

import json
from pathlib import Path
from typing import Any

import pytest

from sft.approval.record_set import find_place
from sft.errors import UserError
from sft.review.exchange import FORMS, Form, export_records, import_decisions
from sft.review.session import ReviewSession, Setting
from tests.review.served import read_decisions, record, write_records

SAID = [("accept", "", None), ("accept", "", "better"), ("reject", "wrong", None), ("skip", "", None)]


def opened(folder: Path) -> ReviewSession:
    return ReviewSession(find_place(folder), "import", Setting())


def answer_in(form: Form, content: dict[str, Any], verdict: str, reason: str, answer: str | None) -> dict[str, Any]:
    """What the tool writes when somebody has answered."""
    if form == "argilla":
        said = {"verdict": verdict, "reason": reason, "answer": content["suggestions"]["answer"]["value"]}
        said |= {} if answer is None else {"answer": answer}
        user = "7d0d5b5e-0000-4000-8000-000000000001"
        responses = {name: [{"value": value, "user_id": user}] for name, value in said.items() if value}
        return {**content, "responses": responses}
    shown = answer or content["data"]["answer"]
    results = [
        {"from_name": "verdict", "to_name": "dialogue", "type": "choices", "value": {"choices": [verdict]}},
        {
            "from_name": "reason",
            "to_name": "dialogue",
            "type": "textarea",
            "value": {"text": [reason] if reason else []},
        },
        {"from_name": "answer", "to_name": "dialogue", "type": "textarea", "value": {"text": [shown]}},
    ]
    annotation = {"result": results, "completed_by": {"id": 3, "email": "kim@lab.test"}, "lead_time": 4.25}
    return {"id": 1, **content, "annotations": [annotation]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_what_people_say_in_another_tool_comes_back_once(tmp_path: Path, form: Form, ending: str) -> None:
    folder = write_records(tmp_path / "made", [record(f"question {i}", f"answer\n{i}") for i in range(4)])
    out, back = tmp_path / f"out.{ending}", tmp_path / f"back.{ending}"
    assert export_records(opened(folder), form, out) == 4
    text = out.read_text(encoding="utf-8")
    contents = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
    done = [answer_in(form, content, *said) for content, said in zip(contents, SAID, strict=True)]
    back.write_text(json.dumps(done) if ending == "json" else "\n".join(map(json.dumps, done)))
    assert import_decisions(opened(folder), form, back) == {"taken": 4}
    assert import_decisions(opened(folder), form, back) == {"taken before": 4}
    found = read_decisions(folder)
    assert [one["verdict"] for one in found] == ["accept", "edit", "reject", "skip"]
    assert found[1]["edited"]["messages"][1]["content"] == "better"
    assert found[2]["reason"] == "wrong"
    assert len({one["reviewer"] for one in found}) == 1
    assert export_records(opened(folder), form, out) == 4
    assert "better" in out.read_text(encoding="utf-8"), "records go out as they are now"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_decision_on_a_record_that_is_here_is_counted(tmp_path: Path, form: Form) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    content = json.loads(out.read_text())
    here = answer_in(form, content, "perhaps", "", None)
    name = {"id": "gone"} if form == "argilla" else {"data": {**content["data"], "record": "gone"}}
    gone = {**answer_in(form, content, "accept", "", None), **name}
    odd = [{}, {"annotations": 1, "responses": [2]}, {"annotations": [3], "responses": {"verdict": 4}}]
    back.write_text("\n".join(map(json.dumps, [here, gone, *odd, 5])))
    outcomes = import_decisions(opened(folder), form, back)
    assert outcomes["not taken: this record is not in the file"] >= 1
    assert "taken" not in outcomes
    assert read_decisions(folder) == []


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    (tmp_path / "x.json").write_text("[{]")
    (tmp_path / "min.json").write_text('[{"record": "1", "verdict": "accept", "annotator": 1, "lead_time": 3.2}]')
    with pytest.raises(UserError, match="min.json holds no decision"):
        import_decisions(opened(folder), "label-studio", tmp_path / "min.json")
    for name in ("x.json", "nothing.json"):
        with pytest.raises(UserError, match=name):
            import_decisions(opened(folder), "argilla", tmp_path / name)
