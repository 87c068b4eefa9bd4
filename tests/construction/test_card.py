"""The data card says what is known and stated, is one that the Hub reads, and no text from elsewhere acts in it."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from launcher.cli import main
from sft.approval.decisions import Decision, DecisionFile
from sft.config_construction import ConstructConfig
from sft.construction.card import render_card, update_card, write_card
from sft.construction.filters.registry import FILTERS
from sft.construction.folder import ConstructionFolder
from sft.construction.outcome_summary import read_summary
from sft.construction.script import Dropped, Failed, Outcome
from sft.errors import UserError
from sft.markdown import code, escaped
from sft.printable import fit_to_print
from tests.construction.folders import HOSTILE, folder_of, made, outcomes
from tests.construction.teaching import lines_of

STATED = {
    "licence": "cc-by-4.0",
    "seed_licences": {"by_hand": "CC0 1.0"},
    "teacher_terms": "Outputs may train other models.",
    "language": ["en", "de"],
    "notes": "Made for *this* demonstration.",
}
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def card_of(folder: ConstructionFolder) -> str:
    return render_card(folder, read_summary(folder))


def test_what_is_not_stated_is_called_so(tmp_path: Path) -> None:
    card = card_of(folder_of(tmp_path / "made", outcomes(12)))
    for part in ("Licence of these records: not stated", "Terms of the teacher: not stated", "Languages: not stated",
                 "| by_hand | 5 | not stated |", "Nobody has reviewed", "No answer was verified."):  # fmt: skip
        assert part in card
    data = DatasetCard(card).data
    assert data.license is None
    assert data.language is None


def test_the_hub_reads_what_is_stated(tmp_path: Path) -> None:
    section = ConstructConfig.model_validate(
        {
            "teacher": {"endpoint": "http://x/v1"},
            "recipes": [{"kind": "few_shot", "num": 1}],
            "out": "x",
            "card": STATED,
        }
    )
    folder = folder_of(tmp_path / "made", outcomes(60), card=section.card.model_dump(mode="json"))
    write_card(folder)
    card = DatasetCard.load(folder.card)
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en", "de"])
    assert card.data.size_categories == ["n<1K"]
    assert card.data.configs == [{"config_name": "default", "data_files": "records.jsonl"}]
    assert (folder.path / card.data.configs[0]["data_files"]).is_file()
    unused = ", ".join(name for name in FILTERS if name not in ("form", "refusals", "copies"))
    for part in ("| by_hand | 5 | CC0 1.0 |", "Outputs may train other models.", "*this*", "| 60 | 10 | 20 | 30 |",
                 "| form | 10 | 20.0% |", "`big at http://127.0.0.1:8000/v1`", "on 2026-11-20",
                 "52 requests took 5,050 tokens",
                 f"Filters that were not used: {unused}."):  # fmt: skip
        assert part in card.text, part
    folder_of(tmp_path / "other", [], card={"licence": "My own licence"})
    assert DatasetCard(card_of(ConstructionFolder(tmp_path / "other"))).data.license == "other"


def test_no_text_from_elsewhere_acts_in_the_card(tmp_path: Path) -> None:
    def tags(texts: tuple[str, ...]) -> tuple[list[str], str]:
        drafts = [made(text, task=text, recipe=text) for text in texts]
        given: list[Outcome] = [*drafts, *(Dropped(draft, "form", draft.task) for draft in drafts), Failed(texts[0])]
        card = {"licence": texts[0], "teacher_terms": texts[-1]}
        folder = folder_of(tmp_path / str(len(texts[0])), given, card=card, sources={text: 1 for text in texts})
        body = DatasetCard(card_of(folder)).text
        # Rows are sorted by their texts: the tags are the same in any order.
        return sorted(re.findall(r"<[^>]+>", MARKDOWN.render(body))), body

    hostile, body = tags(HOSTILE)
    harmless, _ = tags(tuple(f"text number {i}" for i in range(len(HOSTILE))))
    assert hostile == harmless
    assert "hunter22" not in body
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2066]", body)


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\`*_[]<>&|~#-+.1) \n:!(/h"), max_size=40))
def test_a_text_is_shown_as_it_is(text: str) -> None:
    line = " ".join(fit_to_print(text).split())
    for written in (escaped(text), code(text)):
        rendered = MARKDOWN.render(f"| a | b |\n|---|---|\n| {written} | {written} |")
        cells = re.findall("<td>(.*)</td>", rendered)
        assert [html.unescape(re.sub("</?code>", "", cell)) for cell in cells] == [line, line]
    paragraph = MARKDOWN.render(f"- x {escaped(text)}")
    assert html.unescape(paragraph) == f"<ul>\n<li>x {line}</li>\n</ul>\n".replace("x </li>", "x</li>")


def decide(folder: ConstructionFolder, *said: tuple[int, str, str]) -> None:
    records = lines_of(folder.records)
    for place, verdict, reviewer in said:
        name = f"{place} {verdict} {reviewer}"
        decision = Decision(name, records[place]["id"], verdict, reviewer, f"2026-11-2{place}T10:00:00Z")  # type: ignore[arg-type]
        DecisionFile(folder.path / "decisions.jsonl").append(decision)


def test_each_teacher_has_what_it_made_on_the_card(tmp_path: Path) -> None:
    given: list[Outcome] = [made(f"Write {i}") for i in range(3)]
    small = [
        replace(draft, provenance=replace(draft.provenance, teacher="small", made="2026-11-21"))
        for draft in map(made, ("Say a", "Say b"))
    ]
    card = card_of(folder_of(tmp_path / "made", [*given, small[0], Dropped(small[1], "form", "too short")]))
    for part in ("`big at http://127.0.0.1:8000/v1` | `0123456789abcdef` | temperature 0.7 | 3 | 3 | on 2026-11-20 |",
                 "`small` | `0123456789abcdef` | temperature 0.7 | 2 | 1 | on 2026-11-21 |",
                 "from 2026-11-20 to 2026-11-21"):  # fmt: skip
        assert part in card, part
    many = [replace(one, provenance=replace(one.provenance, prompts=f"{i:016}")) for i in range(25) for one in small]
    rows = re.findall(r"^\| few_shot \| .* \| (\d+) \| (\d+) \| on ", card_of(folder_of(tmp_path / "many", many)), re.M)
    assert rows == [*[("2", "2")] * 20, ("10", "10")], "none is lost"


def test_what_people_decided_is_on_the_card(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made", outcomes(12))
    decide(folder, (0, "accept", "kim"), (1, "accept", "kim"), (2, "reject", "<b>lee</b>"), (0, "accept", "<b>lee</b>"))
    card = card_of(folder)
    for part in ("As of 2026-11-22T10:00:00Z, of 6 records", "| accepted | 2 |", "| rejected | 1 |", "| open | 3 |",
                 "| kim | 2 | 0 | 0 |", r"| \<b\>lee\</b\> | 1 | 1 | 0 |", "both decided on 1 record"):  # fmt: skip
        assert part in card, part
    assert re.search(r"</ul>\n<p><code>records.jsonl</code> holds all", MARKDOWN.render(DatasetCard(card).text))


def test_a_review_brings_the_card_up_to_date(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made", outcomes(12))
    write_card(folder)
    tasks = tmp_path / "tasks.json"
    assert main(["review", str(folder.path), "--export", "argilla", str(tasks)]) == 0
    content = json.loads(tasks.read_text())
    assert "Nobody has reviewed" in folder.card.read_text()
    decide(folder, (0, "accept", "kim"))
    content[1]["responses"] = {"verdict": [{"value": "accept", "user_id": "1"}]}
    tasks.write_text(json.dumps(content))
    assert main(["review", str(folder.path), "--import", "argilla", str(tasks)]) == 0
    assert "| kim | 1 | 0 | 0 |" in folder.card.read_text()
    # A folder without a card gets none.
    folder.card.unlink()
    update_card(folder.path)
    assert not folder.card.exists()


def test_a_card_says_what_is_open_and_noted(tmp_path: Path) -> None:
    given: list[Outcome] = [Failed("not asked yet", is_final=False), made("a prompt")]
    about = {"noted": {"heldout: shares 13 tokens": 1}, "no_seeds": {"a system text": 2000, "tools": 1}}
    card = card_of(folder_of(tmp_path / "made", given, **about))
    assert "drawn as seeds, and are none. Not shown: 2,000 with a system text, 1 with tools." in card
    assert "**Not finished:** 1 of 2 records" in card
    assert "Kept all the same: 1 record of which a filter notes: heldout: shares 13 tokens." in card


def test_a_file_that_is_gone_is_a_message(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made", outcomes(12))
    write_card(folder)
    folder.dropped.unlink()
    with pytest.raises(UserError, match="dropped.jsonl cannot be read: No such file .* The same `sft construct`"):
        update_card(folder.path)


@pytest.mark.parametrize("language", [["English"], "en"])
def test_languages_are_codes(language: object) -> None:
    given = {"teacher": {"endpoint": "x"}, "recipes": [{}], "out": "x", "card": {"language": language}}
    with pytest.raises(ValueError, match="language"):
        ConstructConfig.model_validate(given)
