"""What recipes read of the user's files: documents, tools, persons; and how what is wrong with them is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import SftConfig
from sft.construction.construction import check_sources
from sft.construction.recipes import tool_calls
from sft.construction.recipes.documents import passages_of, read_passages
from sft.construction.recipes.registry import read_recipes, recipe_problems
from sft.construction.recipes.tool_schemas import UNFIT, UNKNOWN, call_problem, read_tool_file
from sft.construction.script import Failed
from sft.draft import Draft
from sft.errors import UserError
from tests.construction.played import played
from tests.construction.recipe_teacher import DOCUMENT, TOOLS
from tests.construction.teaching import section

# ---------------------------------------------------------------- documents

_PARAGRAPHS = st.lists(
    st.sampled_from(["# Head", "one two three", "x" * 50, "```\na\n\nb\n```", "- p\n- q", "é 水" * 9])
)


@given(_PARAGRAPHS, st.integers(1, 40), st.integers(10, 120))
def test_passages_are_bounded_and_nothing_long_enough_is_lost(parts: list[str], least: int, most: int) -> None:
    text = "\n\n".join(parts)
    found = [*passages_of(text, 1, most)]
    assert all(0 < len(passage) <= most for passage in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert [*passages_of(text, least, most)] == [passage for passage in found if len(passage) >= least]


def test_a_long_line_is_cut_in_no_time_and_a_fence_in_a_line_opens_none() -> None:
    assert len([*passages_of("x" * 20_000_000, 1, 2000)]) == 10_000
    assert [*passages_of("```a``` b\n\n# c\n\n~~~\nd\n\ne", 1, 20)] == ["```a``` b", "# c\n\n~~~\nd\n\ne"]


def test_a_heading_stays_with_its_text_and_code_stays_whole() -> None:
    first, second, third = passages_of(DOCUMENT, 1, 130)
    assert first.startswith("# Rivers of Anduin\n\nThe river")
    assert second.startswith("## Bridges\n\nThere are 3")
    assert third == '```\nbridge = "Osgiliath"\n\nprint(bridge)\n```'


def test_documents_are_patterns_and_each_text_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.md", "deep/er/b.md", "deep/c.txt", "odd[1].md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"\ufeff{name} {'text ' * 9}" if name != "a.md" else f"c {'text ' * 9}")
    (tmp_path / "again.txt").write_text(f"\r\nc {'text ' * 9}\r\n")
    found = read_passages(["**/*.md", "again.txt", "odd[1].md"], 10, 100)
    assert [passage.id.split("#")[0] for passage in found] == ["a.md", "deep/er/b.md", "odd[1].md"]
    assert "\ufeff" not in "".join(passage.text for passage in found)


def test_a_question_is_asked_with_its_passage_or_without(tmp_path: Path) -> None:
    (tmp_path / "doc.md").write_text(DOCUMENT)
    form = {"kind": "from_documents", "task": "sums", "documents": str(tmp_path / "doc.md"), "min_chars": 1}
    pair = {"question": "How long is it?", "answer": "1,388 miles"}
    outcome, asked = played(form, [pair])
    assert isinstance(outcome, Draft)
    passage = outcome.evidence["passage"]
    assert outcome.messages[0]["content"] == f"{passage}\n\nHow long is it?"
    assert "before him, so" in asked[0].messages[0]["content"]
    outcome, asked = played({**form, "with_passage": False}, [pair])
    assert isinstance(outcome, Draft)
    assert outcome.messages[0]["content"] == "How long is it?"
    assert outcome.evidence["passage"] == passage
    assert outcome.provenance.seeds[0].startswith(f"{tmp_path}/doc.md#")
    assert "must name what" in asked[0].messages[0]["content"]


# ---------------------------------------------------------------- tools


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ({"name": "weather", "arguments": {"city": "Rome", "days": 2}}, None),
        ({"name": "now", "arguments": {}}, None),
        ({"name": "clock", "arguments": {}}, UNKNOWN),
        ({"name": ["now"], "arguments": {}}, UNKNOWN),
        ({"name": "now", "arguments": {"zone": "UTC"}}, UNFIT),
        ({"name": "weather", "arguments": {"days": 2}}, UNFIT),
        ({"name": "weather", "arguments": {"city": "Rome", "days": "2"}}, UNFIT),
        ({"name": "weather", "arguments": {"city": "Rome", "days": -1}}, UNFIT),
        ({"name": "weather", "arguments": {"city": "Rome", "unit": "K"}}, UNFIT),
        ({"name": "weather", "arguments": '{"city": "Rome"}'}, "the arguments of a call are no object"),
        ({"name": "now"}, "a call has other keys than name, arguments"),
        ("now", "a call has other keys than name, arguments"),
    ],
)
def test_a_call_fits_the_schema_of_its_tool(call: Any, problem: str | None) -> None:
    assert call_problem(call, TOOLS) == problem


def test_a_number_that_is_too_large_to_compute_with_does_not_fit() -> None:
    tools = [{"function": {"name": "f", "parameters": {"properties": {"x": {"multipleOf": 0.5}}}}}]
    assert call_problem({"name": "f", "arguments": {"x": 10**400}}, tools) == UNFIT
    assert call_problem({"name": "f", "arguments": {"x": 1.5}}, tools) is None


def _calls(tmp_path: Path, **about: Any) -> dict[str, Any]:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    return {"kind": "tool_calls", "task": "sums", "tools": str(tmp_path / "tools.json"), **about}


ROME = {"name": "weather", "arguments": {"city": "Rome"}}


def test_calls_their_results_and_the_answer_become_a_conversation(tmp_path: Path) -> None:
    form = _calls(tmp_path, without=0, several=1)
    calls = {"calls": [ROME, {"name": "now", "arguments": {}}]}
    outcome, asked = played(
        form, [{"request": "Rome? And when?"}, calls, {"results": ["sun", "noon"]}, "Sun, at noon."]
    )
    assert isinstance(outcome, Draft)
    _, calling, sun, noon, answer = outcome.messages
    assert [json.loads(call["function"]["arguments"]) for call in calling["tool_calls"]] == [{"city": "Rome"}, {}]
    assert [call["id"] for call in calling["tool_calls"]] == [sun["tool_call_id"], noon["tool_call_id"]]
    assert (sun["content"], answer["content"]) == ("sun", "Sun, at noon.")
    assert outcome.evidence == {"need": "several", "results_are_invented": True}
    assert sorted(map(str, outcome.tools)) == sorted(map(str, TOOLS))
    outcome, _ = played({**form, "results": False}, [{"request": "Rome? And when?"}, calls])
    assert isinstance(outcome, Draft)
    assert len(outcome.messages) == 2
    outcome, asked = played(_calls(tmp_path, without=1, several=0), [{"request": "Why?"}, {"calls": []}, "So."])
    assert isinstance(outcome, Draft)
    assert [message["content"] for message in outcome.messages] == ["Why?", "So."]
    assert asked[-1].messages == [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("calls", "failed"),
    [
        ({"calls": []}, tool_calls.OTHER_NUMBER),
        ({"calls": [ROME, {"name": "now", "arguments": {}}]}, tool_calls.OTHER_NUMBER),
        ({"calls": [ROME, ROME]}, tool_calls.TWICE),
        ({"calls": [{**ROME, "name": "x"}]}, UNKNOWN),
        ({"calls": [ROME] * 9}, "it makes more than 8 calls"),
        ({"calls": ["now"]}, "the answer is no JSON object with a list of calls"),
        ([ROME], "the answer is no JSON object with a list of calls"),
        ('{"calls": [{"name": "weather", "arguments": {"city": NaN}}]}', "the answer is no JSON"),
    ],
)
def test_wrong_calls_make_no_record(tmp_path: Path, calls: Any, failed: str) -> None:
    assert played(_calls(tmp_path, without=0, several=0), [{"request": "Rome?"}, calls])[0] == Failed(failed)


def test_all_that_is_wrong_with_tools_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    wrong = [
        *({"name": "a"}, {"name": "a"}, {"type": "function"}, 3),
        {"name": "b", "parameters": {"type": "objct"}},
        {"name": "c", "parameters": {"type": "array"}},
        {"name": "d", "parameters": {"$ref": "http://127.0.0.1:1/x.json"}},
        {"name": "e", "parameters": [1]},
        {"name": "f", "parameters": {"properties": {"a": {"pattern": "("}}}},
    ]
    path.write_text(json.dumps(wrong))
    with pytest.raises(UserError) as error:
        read_tool_file(str(path))
    said = str(error.value)
    for part in ("2 tools have the name a", *(f"tool {number}: " for number in (3, 4, 5, 6, 7, 8, 9))):
        assert part in said
    for text, part in (("{", "is no JSON"), ("{}", "holds no list of tools"), ("[]", "no list"), ("\udcff", "no JSON")):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(UserError, match=part):
            read_tool_file(str(path))


@pytest.mark.parametrize("value", ["NaN", "1e999", "1" + 5000 * "0", 100_000 * "["])
def test_tools_with_a_value_that_cannot_be_computed_with_are_one_message(tmp_path: Path, value: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(f'[{{"name": "a", "parameters": {{"properties": {{"x": {{"multipleOf": {value}}}}}}}}}]')
    with pytest.raises(UserError, match="is no JSON"):
        read_tool_file(str(path))


# ---------------------------------------------------------------- what a config gives


@pytest.mark.parametrize(
    ("form", "place", "part"),
    [
        ({"kind": "from_documents", "documents": "a"}, ".task", "add it"),
        ({"kind": "from_documents", "task": "a"}, ".documents", "add it"),
        ({"kind": "from_documents", "task": "a", "documents": []}, ".documents", "at least 1"),
        ({"kind": "from_documents", "task": "a", "documents": "b", "tasks": "rare"}, ".tasks", "`task` names"),
        ({"kind": "tool_calls", "task": "a", "tools": "b", "seeds": "c"}, ".seeds", "no records are shown"),
        ({"kind": "tool_calls", "task": "a", "tools": "b", "without": 0.6, "several": 0.6}, "", "more than 1"),
        ({"kind": "tool_calls", "task": "a"}, ".tools", "add it"),
        ({"kind": "back_translation", "documents": "a"}, "", "name what they make"),
        ({"kind": "back_translation", "task": "a"}, "", "give `documents`"),
        ({"kind": "back_translation", "documents": "a", "task": "b", "tasks": "all"}, "", "leave one of them out"),
        ({"kind": "back_translation", "at_least": 3}, "", "add `curate: true`"),
        ({"kind": "rejection_sampling"}, ".verify", "add it"),
        ({"kind": "rejection_sampling", "verify": "number"}, ".verify", "'numbers', 'json'"),
        ({"kind": "rejection_sampling", "verify": "code"}, "", "add `allow_code: true`"),
        (
            {"kind": "rejection_sampling", "verify": "code", "allow_code": True, "against": "majority"},
            *("", "leave `against` out"),
        ),
        ({"kind": "multi_turn", "turns": 1}, ".turns", "greater than or equal to 2"),
        ({"kind": "evolve", "direction": "up"}, ".direction", "'both', 'deeper'"),
    ],
)
def test_a_wrong_setting_is_one_problem_with_the_way_out(form: dict[str, Any], place: str, part: str) -> None:
    (problem,) = recipe_problems([{"num": 3, **form}])
    assert problem.path == f"construct.recipes.0{place}"
    assert part in f"{problem.rule} {problem.way_out}"


def test_all_files_that_are_wrong_are_named_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "picture.md").write_bytes(b"\x89PNG\xff")
    (tmp_path / "zero.md").write_bytes(b"a\0b")
    (tmp_path / "short.md").write_text("short")
    (tmp_path / "persons.jsonl").write_text(
        '{"persona": "a judge"}\n{"person": "a nurse"}\nx\n{"persona": "\\ud800"}\n'
    )
    forms = [
        {"kind": "from_documents", "task": "a", "documents": [str(tmp_path / "*.txt"), str(tmp_path), "$NO_SUCH/a"]},
        {"kind": "back_translation", "task": "a", "documents": [str(tmp_path / n) for n in ("picture.md", "zero.md")]},
        {"kind": "from_documents", "name": "short", "task": "a", "documents": str(tmp_path / "short.md")},
        {"kind": "persona", "personas": str(tmp_path / "persons.jsonl")},
        {"kind": "persona", "name": "away", "personas": str(tmp_path / "person.jsonl")},
        {"kind": "tool_calls", "task": "a", "tools": str(tmp_path / "tools.json")},
        {"kind": "from_documents", "name": "none", "task": "a", "documents": "x", "min_chars": 900, "max_chars": 100},
    ]
    given = section("http://127.0.0.1:1/v1", tmp_path / "out", [{**form, "num": 3} for form in forms])
    config = SftConfig.model_validate(
        {
            "run": {"name": "r", "dir": "r"},
            "model": {"path": "m"},
            "data": {"sources": [{"name": "s", "path": "s.jsonl"}]},
            "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        }
    )
    with pytest.raises(UserError) as error:
        check_sources(config, given)
    lines = str(error.value).splitlines()
    assert len(lines) == len(forms)
    for line, parts in zip(
        lines,
        [
            ("from_documents.documents: ", "*.txt matches no file", "is a folder: give", "$NO_SUCH is not set"),
            ("picture.md is no text in UTF-8", "zero.md holds bytes"),
            ("short.documents: no document has a passage of 200 characters",),
            ("persons.jsonl: line 2 is no JSON object with a text `persona`; line 3", "line 4"),
            ("away.personas: there is no file", "near it: persons.jsonl"),
            ("tool_calls.tools: there is no file",),
            ("none.min_chars: 900 is more than max_chars, 100",),
        ],
        strict=True,
    ):
        for part in parts:
            assert part in line
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records.jsonl").write_text("x" * 300)
    own = {
        "kind": "from_documents",
        "task": "a",
        "num": 3,
        "documents": str(tmp_path / "**" / "*.jsonl"),
        "min_chars": 1,
    }
    with pytest.raises(UserError, match="from_documents.documents: some lie in construct.out"):
        check_sources(config, section("http://127.0.0.1:1/v1", tmp_path / "out", [own]))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["a judge", "a nurse ", " a judge", "", "\u2028"]), min_size=1))
def test_each_person_counts_once(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("persons") / "persons.txt"
    path.write_text("\n".join(lines))
    (recipe,) = read_recipes([{"kind": "persona", "num": 3, "personas": str(path)}])
    wanted = list(dict.fromkeys(text for line in lines if (text := line.strip())))
    if wanted:
        assert [*recipe.material().personas] == wanted
    else:
        with pytest.raises(UserError, match="it is empty"):
            recipe.material()


def test_persons_come_in_turn_from_a_file_or_from_seeds(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a judge\na nurse")
    of_file = {"kind": "persona", "personas": str(tmp_path / "p.txt")}
    replies = [{"instruction": "Add 3 and 5, for a bill."}, "8"]
    persons = set()
    for number in (0, 1):
        outcome, asked = played(of_file, replies, number=number)
        assert isinstance(outcome, Draft)
        persons.add(outcome.evidence["persona"])
        assert outcome.evidence["persona"] in asked[0].messages[0]["content"]
    assert persons == {"a judge", "a nurse"}
    outcome, asked = played({"kind": "persona"}, [{"persona": "a cook"}, *replies])
    assert isinstance(outcome, Draft)
    assert outcome.evidence["persona"] == "a cook"
    assert "a cook" in asked[1].messages[0]["content"]
    assert outcome.provenance.seeds == ("one",)


def test_a_line_of_persons_ends_where_a_line_of_a_file_does(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = ['{"persona": "a judge\u2028of Rome"}\r', "", '{"persona": "a \x85nurse"}', ""]
    path.write_bytes("\n".join(lines).encode())
    (recipe,) = read_recipes([{"kind": "persona", "num": 3, "personas": str(path)}])
    assert recipe.material().personas == ("a judge\u2028of Rome", "a \x85nurse")
    path.write_text('{"persona": "a \u2029 judge"}\nx\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 2 is no JSON object"):
        recipe.material()
    path = path.rename(tmp_path / "p.txt")
    path.write_text("a judge\u2028of Rome\n", encoding="utf-8")
    (recipe,) = read_recipes([{"kind": "persona", "num": 3, "personas": str(path)}])
    assert recipe.material().personas == ("a judge\u2028of Rome",)
