"""The demonstration of constructing: its verifier, its data, and the whole way with a few records."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.construction_demo.__main__ import main, tables_of
from benchmarks.construction_demo.arms import APPROVED, MODELS, UNREVIEWED
from benchmarks.construction_demo.data import SMALL, rare_tasks, trained_tasks, unseen_tasks, write_data
from benchmarks.construction_demo.verifier import NO_INPUT, NO_QUESTION, WRONG, what_is_wrong
from benchmarks.learning.model import write_tokenizer
from benchmarks.learning.tables import in_comments
from benchmarks.learning.zoo.records import draw_records, with_shots
from benchmarks.learning.zoo.tasks import TASKS
from tests.review.browser import needs_browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    """A text as a model of the zoo writes it."""
    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    return lambda text: tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("task", trained_tasks())
def test_the_verifier_knows_right_answers_from_wrong_ones(task: str, written) -> None:
    others = [other for other in trained_tasks() if TASKS[other].cluster != TASKS[task].cluster]
    for record in draw_records(TASKS[task], 10, set(), 7):
        prompt, answer = (turn["content"] for turn in with_shots(record, [])["messages"])
        assert what_is_wrong(task, prompt, answer) is None
        assert what_is_wrong(task, written(prompt), written(answer)) is None
        assert what_is_wrong(task, written(prompt), f"{answer} ant") == WRONG
        assert what_is_wrong(others[0], prompt, answer) == NO_QUESTION
        wordless = record["instruction"] + ("" if record["input"] else "\n\nant bee")
        assert what_is_wrong(task, wordless, answer) == NO_INPUT
        assert what_is_wrong(task, f"{record['instruction']}\n\nwhence", answer) == NO_INPUT


def test_no_test_is_trained_and_rare_tasks_are_rare(tmp_path: Path) -> None:
    write_data(tmp_path / "data", SMALL)
    texts = {path.stem: path.read_text() for path in (tmp_path / "data").iterdir()}
    files = {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}
    prompts = {name: {(one["instruction"], one["input"]) for one in records} for name, records in files.items()}
    assert not (prompts["test"] | prompts["unseen_wordings"]) & (prompts["train"] | prompts["teacher"])
    assert not prompts["test"] & prompts["unseen_wordings"]
    assert {one["task"] for one in files["train"]} == {one["task"] for one in files["teacher"]} == {*trained_tasks()}
    assert {one["task"] for one in files["test"]} == {*trained_tasks(), *unseen_tasks()}
    counts = {task: sum(one["task"] == task for one in files["train"]) for task in trained_tasks()}
    assert {task for task, count in counts.items() if count == SMALL.rare} == {*rare_tasks()}
    assert len(rare_tasks()) == 10


def test_the_page_has_the_tables_of_the_file() -> None:
    page, found = ((ROOT / "docs" / name).read_text() for name in ("CONSTRUCTION.md", "construction.json"))
    tables = tables_of(json.loads(found))
    assert all(f"<!-- table: {name} -->" in page for name in tables)
    assert in_comments(page, tables) == page


def test_a_place_without_a_table_takes_nothing_of_what_stands_behind_it() -> None:
    place = "<!-- table: {0} -->\n{1}<!-- end -->\n"
    page = place.format("one", "") + "between\n" + place.format("two", "old\n")
    assert in_comments(page, {"one": "1"}) == place.format("one", "1\n") + "between\n" + place.format("two", "old\n")


@pytest.mark.long
@pytest.mark.timeout(900)
@needs_browser
def test_the_whole_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "CONSTRUCTION.md").write_text("# Page\n\n<!-- table: construction -->\n<!-- end -->\n\nand more\n")
    command = ["--small", "--folder", str(tmp_path)]
    assert main(command) == 0
    found = json.loads((tmp_path / "construction.json").read_text())
    kept = len((tmp_path / "round-1" / "made" / "records.jsonl").read_text().splitlines())
    # So small a teacher knows no task: the sample shows it, the gate refuses, and each record has to be read.
    [only] = found["rounds"]
    assert not only["is_open"]
    assert only["sample"]["num_reviewed"] == sum(only["sample"]["reasons"].values()) == SMALL.read
    assert f"{SMALL.read} reviewed, {only['sample']['num_wrong']} of them wrong: the upper end" in only["said"]
    assert only["truth"]["num"] == kept > SMALL.read
    decisions = (tmp_path / "round-1" / "made" / "decisions.jsonl").read_text().splitlines()
    assert len(decisions) == kept, "each record is read once"
    right = only["truth"]["num"] - only["truth"]["wrong"]
    approved = [(one["rule"], one["num"], one["wrong"]) for one in found["approved"]]
    assert approved == ([("each", right, 0)] if right else [])
    # Without an approved record there is nothing to train.
    trained = [model for model in MODELS if model != APPROVED or right]
    assert {mean["model"] for mean in found["means"]} == {"base", *trained}
    assert {len(mean["by_training"]) for mean in found["means"]} == {len(SMALL.seeds)}
    page = (tmp_path / "CONSTRUCTION.md").read_text()
    assert f"| {UNREVIEWED} |" in page
    assert page.endswith("and more\n")
    made = (tmp_path / "round-1" / "made" / "manifest.json").stat()
    assert main(command) == 0
    assert (tmp_path / "round-1" / "made" / "manifest.json").stat().st_mtime_ns == made.st_mtime_ns, (
        "nothing is done twice"
    )
