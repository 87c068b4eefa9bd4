"""What other tools are given comes back as decisions, once."""

import json
from itertools import permutations
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
        return {**content, "responses": responses, "status": "completed"}
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
def test_a_decision_that_comes_back_to_an_earlier_one_is_taken(tmp_path: Path, form: Form) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a"), record("q 2", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    content = json.loads(out.read_text().splitlines()[0])
    said = ["reject", "accept", "reject", "reject", "accept"]
    for verdict in said:
        back.write_text(json.dumps(answer_in(form, content, verdict, "", None)))
        import_decisions(opened(folder), form, back)
    assert [one["verdict"] for one in read_decisions(folder)] == ["reject", "accept", "reject", "accept"]
    assert opened(folder).progress()["total"]["accepted"] == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("said", [*permutations(SAID, 2), *permutations(SAID[1:], 3)])
def test_what_was_changed_there_between_two_imports_counts_as_if_it_had_come_once(
    tmp_path: Path, form: Form, said: tuple[tuple[str, str, str | None], ...]
) -> None:
    states = []
    for name, imported in (("often", said), ("once", said[-1:])):
        folder = write_records(tmp_path / name, [record("q", "a")])
        out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
        export_records(opened(folder), form, out)
        content = json.loads(out.read_text())
        for verdict, reason, answer in imported:
            for _ in range(2):
                back.write_text(json.dumps(answer_in(form, content, verdict, reason, answer)))
                import_decisions(opened(folder), form, back)
        states.append((opened(folder).progress()["total"], [one["messages"] for one in opened(folder).approved()]))
    assert states[0] == states[1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("said", "state"),
    [
        (["accept", "perhaps"], "open"),
        (["reject", "accept", "perhaps"], "open"),
        (["reject", "perhaps"], "rejected"),
        (["flag", "perhaps"], "flagged"),
        (["accept", "perhaps", "accept"], "accepted"),
        (["accept", "perhaps", "accept", "perhaps"], "open"),
    ],
)
def test_no_approval_stands_where_the_last_word_is_not_understood(
    tmp_path: Path, form: Form, said: list[str], state: str
) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    content = json.loads(out.read_text())
    for verdict in said:
        back.write_text(json.dumps(answer_in(form, content, verdict, "", None)))
        import_decisions(opened(folder), form, back)
    assert opened(folder).progress()["total"][state] == 1
    num = len(read_decisions(folder))
    import_decisions(opened(folder), form, back)
    assert len(read_decisions(folder)) == num


def test_of_several_answers_of_one_person_those_that_are_new_are_taken(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), "label-studio", out)
    content = json.loads(out.read_text())
    said = [
        answer_in("label-studio", content, verdict, "", None) for verdict in ("flag", "perhaps", "accept", "reject")
    ]
    for num in (1, 2, 2, 3, 3, 4, 4):
        annotations = [one["annotations"][0] for one in said[:num]]
        back.write_text(json.dumps({**content, "annotations": annotations}))
        import_decisions(opened(folder), "label-studio", back)
    assert [one["verdict"] for one in read_decisions(folder)] == ["flag", "accept", "reject"]


TIMES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"updated_at": "2026-01-01T02:00:00.5Z"}, {"updated_at": "2026-01-01T02:00:01Z"}),
    ({"updated_at": "2026-01-01T03:00:00+02:00"}, {"updated_at": "2026-01-01T02:00:00Z"}),
    ({"updated_at": "2026-01-01T02:00:00Z", "created_at": "2027-01-01"}, {"created_at": "2026-01-02T00:00:00"}),
    ({"id": 9}, {"id": 10}),
    ({"id": 10, "updated_at": "2026-01-01T02:00:00Z"}, {"id": 9, "updated_at": "2026-01-01T02:00:01Z"}),
    ({"id": 1, "updated_at": "no time"}, {"id": 2, "updated_at": 5}),
    ({"id": 9}, {"id": 10**400}),
]


@pytest.mark.parametrize(("earlier", "later"), TIMES)
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_one_task", [True, False])
def test_what_was_said_later_counts_wherever_it_stands_in_the_file(
    tmp_path: Path, earlier: dict[str, Any], later: dict[str, Any], is_first: bool, is_one_task: bool
) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), "label-studio", out)
    content = json.loads(out.read_text())
    said = [
        {**answer_in("label-studio", content, verdict, "", None)["annotations"][0], **when}
        for verdict, when in (("accept", earlier), ("reject", later))
    ]
    said = said if is_first else said[::-1]
    tasks = [{**content, "annotations": part} for part in ([said] if is_one_task else [[one] for one in said])]
    for _ in range(2):
        back.write_text(json.dumps(tasks))
        import_decisions(opened(folder), "label-studio", back)
        assert [one["verdict"] for one in read_decisions(folder)] == ["accept", "reject"]


def with_value(form: Form, content: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Accepted, and `value` in the place of what the tool has of `name`."""
    done = answer_in(form, content, "accept", "", None)
    if form == "argilla":
        done["responses"][name] = [{"value": value, "user_id": done["responses"]["verdict"][0]["user_id"]}]
        return done
    (annotation,) = done["annotations"]
    kind = "choices" if name == "verdict" else "text"
    others = [one for one in annotation["result"] if one["from_name"] != name]
    result = {"from_name": name, "type": "choices" if name == "verdict" else "textarea", "value": {kind: value}}
    return {**done, "annotations": [{**annotation, "result": [*others, result]}]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "value", "outcome"),
    [
        ("answer", "better", "taken"),
        ("answer", ["better"], "taken"),
        ("answer", ["better", "better"], "taken"),
        ("answer", ["a", "better"], "not taken: it has more than one 'answer'"),
        ("answer", {"text": "better"}, "not taken: its 'answer' is no text"),
        ("answer", [["better"]], "not taken: its 'answer' is no text"),
        ("reason", 5, "not taken: its 'reason' is no text"),
        ("verdict", ["accept", "reject"], "not taken: it has more than one 'verdict'"),
        ("verdict", 1, "not taken: its 'verdict' is no text"),
    ],
)
def test_an_answer_counts_in_any_form_or_is_refused_with_all_that_was_said(
    tmp_path: Path, form: Form, name: str, value: Any, outcome: str
) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    back.write_text(json.dumps(with_value(form, json.loads(out.read_text()), name, value)))
    assert import_decisions(opened(folder), form, back) == {outcome: 1}
    made = [one["edited"]["messages"][1]["content"] for one in read_decisions(folder)]
    assert made == (["better"] if outcome == "taken" else [])


def test_two_answers_of_one_person_and_a_text_of_another_name_are_refused(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    for form in FORMS:
        export_records(opened(folder), form, out)
        content = json.loads(out.read_text())
        done = with_value(form, content, "answer", "better")
        if form == "argilla":
            done["responses"]["answer"].append({**done["responses"]["answer"][0], "value": "best"})
        else:
            result = done["annotations"][0]["result"]
            result.append({**result[-1], "value": {"text": ["best"]}})
        back.write_text(json.dumps(done))
        assert import_decisions(opened(folder), form, back) == {"not taken: it has more than one 'answer'": 1}
    export_records(opened(folder), "label-studio", out)
    back.write_text(json.dumps(with_value("label-studio", json.loads(out.read_text()), "rewritten", ["better"])))
    (outcome,) = import_decisions(opened(folder), "label-studio", back)
    assert "it has a text that is named 'rewritten'" in outcome
    assert read_decisions(folder) == []


def test_an_annotation_that_is_cancelled_says_nothing_whatever_it_holds(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), "label-studio", out)
    for value in (["accept", "reject"], "accept"):
        done = with_value("label-studio", json.loads(out.read_text()), "verdict", value)
        done["annotations"][0]["was_cancelled"] = True
        back.write_text(json.dumps(done))
        import_decisions(opened(folder), "label-studio", back)
        assert [one["verdict"] for one in read_decisions(folder)] == ["skip"]


@pytest.mark.parametrize("form", FORMS)
def test_a_record_whose_answer_was_emptied_is_not_accepted(tmp_path: Path, form: Form) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    emptied: list[Any] = [[], ""]
    for value in emptied:
        back.write_text(json.dumps(with_value(form, json.loads(out.read_text()), "answer", value)))
        (outcome,) = import_decisions(opened(folder), form, back)
        assert "answer" in outcome
    assert read_decisions(folder) == []


Response = tuple[str, str, str | None]
"""User, verdict and status of a response; None: Argilla has lost it."""


def from_argilla(content: dict[str, Any], responses: list[Response], status: str, is_flat: bool) -> dict[str, Any]:
    """As `to_list(flatten=True)` and `to_json` of Argilla's SDK write a record; the second knows no status."""
    shown = content["suggestions"]["answer"]["value"]
    parts = {
        "verdict": [(user, verdict, state) for user, verdict, state in responses],
        "answer": [(user, shown, state) for user, _, state in responses],
    }
    kept = {"id": content["id"], "status": status}
    if not is_flat:
        nested = {part: [{"value": value, "user_id": user} for user, value, _ in of] for part, of in parts.items()}
        return {**content, **kept, "responses": nested}
    flat: dict[str, Any] = {"answer.suggestion": shown, "reason.responses": None, "chat": content["fields"]["chat"]}
    for part, of in parts.items():
        flat[f"{part}.responses"] = [value for _, value, _ in of]
        flat[f"{part}.responses.users"] = [user for user, _, _ in of]
        flat[f"{part}.responses.status"] = [state for _, _, state in of]
    return {**kept, **flat}


UNKNOWN = "not taken: the file does not say whether it was submitted: export it by to_list(flatten=True)"


@pytest.mark.parametrize(
    ("responses", "status", "is_flat", "outcomes", "verdicts"),
    [
        ([("a", "accept", "submitted")], "completed", True, {"taken": 1}, ["accept"]),
        ([("a", "accept", "submitted"), ("b", "reject", "draft")], "completed", True, {"taken": 2}, ["accept", "skip"]),
        ([("a", "accept", "draft"), ("b", "flag", "submitted")], "completed", True, {"taken": 2}, ["skip", "flag"]),
        ([("a", "accept", "discarded")], "pending", True, {"taken": 1}, ["skip"]),
        ([("a", "accept", "submitted")], "pending", True, {"taken": 1}, ["accept"]),
        ([("a", "accept", None)], "completed", True, {"taken": 1}, ["accept"]),
        ([("a", "accept", None)], "completed", False, {"taken": 1}, ["accept"]),
        ([("a", "accept", None)], "pending", False, {UNKNOWN: 1}, []),
        ([("a", "accept", None), ("b", "reject", None)], "completed", False, {UNKNOWN: 2}, []),
        ([("a", "accept", "unheard")], "completed", True, {UNKNOWN: 1}, []),
    ],
)
def test_of_argilla_counts_what_was_submitted(
    tmp_path: Path,
    responses: list[Response],
    status: str,
    is_flat: bool,
    outcomes: dict[str, int],
    verdicts: list[str],
) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), "argilla", out)
    back.write_text(json.dumps(from_argilla(json.loads(out.read_text()), responses, status, is_flat)))
    assert import_decisions(opened(folder), "argilla", back) == outcomes
    assert [one["verdict"] for one in read_decisions(folder)] == verdicts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<b>bold</b> &amp; ![](http://127.0.0.1/x.png)",
        "```python\n1 < 2\n```\n````",
        "".join(map(chr, range(0x4E00, 0x4E00 + 20_001))) * 2,
        "`" * 20_001,
    ],
)
def test_argilla_is_given_messages_that_its_server_takes_and_shows_as_they_are(tmp_path: Path, text: str) -> None:
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": text, "tool_calls": [{"name": "f"}]}]
    made = {"messages": turns, "": "x", "a column with a name of one's own": "y", "empty": ""}
    folder = write_records(tmp_path / "made", [made])
    export_records(opened(folder), "argilla", tmp_path / "out.jsonl")
    chat = json.loads((tmp_path / "out.jsonl").read_text())["fields"]["chat"]
    assert all(0 < len(one["role"]) <= 20 and 0 < len(one["content"]) <= 20_000 for one in chat)
    assert {"user", "tool_calls", "a column with a name", "empty"} <= {one["role"] for one in chat}
    blocks = [one["content"] for one in chat if one["role"] == "assistant"]
    fence, _, _ = blocks[0].partition("\n")
    assert "".join(block.removeprefix(f"{fence}\n").removesuffix(f"\n{fence}") for block in blocks) == text
    assert set(fence) == {"`"}
    assert fence not in text or len(fence) == 1_000


TURNS: list[dict[str, Any]] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"messages": TURNS, "task": "t", "category": "web"}, "a"),
    ({"instruction": "q", "output": "a", "source": "web"}, "a"),
    ({"question": "q", "answer": "a", "id": "7", "source": "web"}, "a"),
    ({"messages": [TURNS[0], {**TURNS[1], "reasoning_content": "thought"}]}, "a"),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "source": "web"}, "a"),
    ({"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "source": "web"}, "a"),
    ({"conversations": TURNS, "source": "web"}, "a"),
    ({"messages": [*TURNS, TURNS[0], {"role": "assistant", "content": "b"}]}, "b"),
    ({"messages": [TURNS[0], {"role": "assistant", "content": [{"type": "text", "text": "a"}]}], "source": "web"}, ""),
    ({"prompt": json.dumps(TURNS[:1]), "completion": json.dumps(TURNS[1:]), "source": "web"}, ""),
    ({"text": "q", "more": "a"}, ""),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("fields", "answer"), ANSWERS)
def test_the_answer_is_what_is_learned(tmp_path: Path, form: Form, fields: dict[str, Any], answer: str) -> None:
    folder = write_records(tmp_path / "made", [fields])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    content = json.loads(out.read_text())
    if form == "label-studio":
        assert content["data"]["answer"] == answer
    else:
        assert content["suggestions"] == ({"answer": {"value": answer, "score": None, "agent": None}} if answer else {})
        content["suggestions"] = {"answer": {"value": answer}}  # what `answer_in` answers where nothing is edited
    back.write_text(json.dumps(answer_in(form, content, "accept", "", "better")))
    outcomes = import_decisions(opened(folder), form, back)
    if not answer:
        assert list(outcomes) == [
            "not taken: what was edited is not the answer of the record, but another text or none: export it again"
        ]
        return
    (made,) = read_decisions(folder)
    assert json.dumps(made["edited"], sort_keys=True) == json.dumps(fields, sort_keys=True).replace(
        f'"{answer}"', '"better"'
    ).replace('"id": "7"', f'"id": "{made["edited"].get("id")}"')


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_that_was_given_out_as_another_text_edits_nothing(tmp_path: Path, form: Form) -> None:
    folder = write_records(tmp_path / "made", [record("q", "a")])
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    export_records(opened(folder), form, out)
    content = json.loads(out.read_text())
    if form == "label-studio":
        content["data"]["answer"] = "web"
    else:
        content["suggestions"]["answer"]["value"] = "web"
    for answer, outcome in (("webs", "not taken"), (None, "taken")):
        back.write_text(json.dumps(answer_in(form, content, "accept", "", answer)))
        assert [what.partition(":")[0] for what in import_decisions(opened(folder), form, back)] == [outcome]
    assert [one["verdict"] for one in read_decisions(folder)] == ["accept"]


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
