"""The page of a construction counts every script, shows drafts as text alone, and does not grow with their number."""

import random
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.construction.drawn import Drawn
from sft.construction.filters.compared_words import ComparedWords
from sft.construction.nearest_seeds import nearest_seeds
from sft.construction.outcome_summary import MOST_DRAWN, read_summary
from sft.construction.page import write_page
from sft.construction.page_tables import cost_rows, funnel_rows, part_rows
from sft.construction.script import Dropped, Failed, Outcome
from sft.construction.shown_draft import ShownDraft
from sft.construction.variety import varieties
from sft.draft import Draft
from sft.errors import UserError
from tests.construction.folders import HOSTILE, SEEDS, folder_of, made, outcomes

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NO_WORDS = ComparedWords(())


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag, tuple(name for name, _ in attrs)] += 1

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(path: Path, given: list[Outcome]) -> str:
    folder = folder_of(path, given)
    write_page(folder, SEEDS)
    return folder.page.read_text()


@given(st.lists(st.sampled_from(["kept", "novelty", "form", "copies", "failed"]), max_size=30))
def test_nothing_is_lost_on_the_way_from_wanted_to_kept(tmp_path_factory, kinds) -> None:
    given: list[Outcome] = []
    for i, kind in enumerate(kinds):
        draft = made(f"prompt {i}", task=f"task {i % 3}")
        given.append(draft if kind == "kept" else Failed("no") if kind == "failed" else Dropped(draft, kind, "why"))
    summary = read_summary(folder_of(tmp_path_factory.mktemp("lost") / "made", given))
    wanted, *losses, kept = funnel_rows(summary)
    assert (wanted.num, kept.num) == (len(kinds), kinds.count("kept"))
    assert wanted.num == kept.num + sum(row.num for row in losses)
    for row, following in pairwise([*losses, kept]):
        assert row.left == pytest.approx(following.left + following.share), "each bar ends where the last began"
    rows, num = part_rows(summary)
    assert num == len(rows)
    for row in rows:
        assert row.wanted == row.kept + row.not_made + row.dropped.total()
    *parts, whole = cost_rows(summary)
    assert sum(row.requests for row in parts) == whole.requests
    assert sum(row.tokens for row in parts) == whole.tokens
    assert sum(row.cost or 0 for row in parts) == pytest.approx(whole.cost)


def test_what_teachers_say_is_never_a_part_of_the_page(tmp_path: Path) -> None:
    def given(texts: tuple[str, ...]) -> list[Outcome]:
        drafts = [made(f"{text} {i}", text, task=text.replace("\n", " ")) for i, text in enumerate(texts)]
        return [*drafts, *(Dropped(draft, "form", draft.task) for draft in drafts), *(Failed(t) for t in texts)]

    harmless = tuple(f"text number {i}" for i in range(len(HOSTILE)))
    text = page_of(tmp_path / "hostile", given(HOSTILE))
    page, other = Page(text), Page(page_of(tmp_path / "harmless", given(harmless)))
    # What a browser builds is the same, but for the words that the texts begin with.
    assert page.tags.keys() == other.tags.keys()
    assert not [tag for tag, names in page.tags if tag in ("script", "img", "a", "link") or {"src", "href"} & {*names}]
    assert "default-src 'none'; style-src 'unsafe-inline'\"" in text
    assert "hunter22" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2066\u2028\ufeff]", text)
    shown = "".join(page.text)
    assert HOSTILE[0] in shown
    assert "⟨U+202E⟩right to left" in shown
    assert "مرحبا بالعالم" in shown


def test_the_page_says_what_became_of_all(tmp_path: Path) -> None:
    text = page_of(tmp_path / "made", outcomes(60))
    words = " ".join(" ".join(Page(text).text).split())
    for part in ("wanted 60", "made 50", "kept 30", "dropped by novelty −10", "dropped by form −10",
                 "dropped by copies 0", "10 form: too short", "the answer is no JSON 10",
                 "a judge, and what made no draft",
                 "ROUGE-L of each of 30 kept records", "different first words 1 1",
                 "different first two words 4 1"):  # fmt: skip
        assert part in words, part
    assert text == page_of(tmp_path / "again" / "made", outcomes(60)), "the same folder gives the same page"


@pytest.mark.parametrize("kinds", [[], ["failed"], ["dropped"], ["kept"]])
def test_there_is_a_page_where_little_is_there(tmp_path: Path, kinds: list[str]) -> None:
    draft = made("a prompt of words")
    by_kind: dict[str, Outcome] = {"failed": Failed("no"), "dropped": Dropped(draft, "form", "short"), "kept": draft}
    folder = folder_of(tmp_path / "made", [by_kind[kind] for kind in kinds], cost=None)
    write_page(folder)
    text = folder.page.read_text()
    assert ("None is kept." in text) == (kinds != ["kept"])
    assert "nan" not in text.lower().replace("finance", "")


def test_the_page_and_its_memory_do_not_grow_with_the_records(tmp_path: Path) -> None:
    def size(num: int) -> int:
        given: list[Outcome] = [made(f"Write sentence {i:05} of it", "it " * 800) for i in range(num)]
        folder = folder_of(tmp_path / str(num), given)
        summary = write_page(folder, SEEDS)
        assert len(summary.kept.things) == min(num, MOST_DRAWN)
        assert max(len(draft.answer) for draft in summary.kept.things) < 2100
        return folder.page.stat().st_size

    assert size(MOST_DRAWN + 100) < 1.05 * size(MOST_DRAWN // 4)
    assert "of 2,000 kept records, drawn at random of 2,100" in (tmp_path / "2100" / "construct.html").read_text()


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made", outcomes(6))
    folder.dropped.write_text('{"id": "x"}\n')
    with pytest.raises(UserError, match=r"dropped\.jsonl:1 is damaged"):
        write_page(folder)
    folder.dropped.write_text("")
    folder.records.write_text(folder.records.read_text().replace('[{"role": "user"', '["x", {"role": "user"', 1))
    with pytest.raises(UserError, match=r"records\.jsonl:1 is damaged"):
        write_page(folder)
    folder.manifest.write_text('{"kind": "construction", "is_complete": false}')
    with pytest.raises(UserError, match="no records of a construction"):
        write_page(folder)


@settings(max_examples=30)
@given(st.sets(st.text(max_size=5), max_size=40), st.integers(1, 9), st.randoms(use_true_random=True))
def test_a_draw_depends_on_the_names_and_the_seed_alone(names, num, rng) -> None:
    def draw(order: list[str]) -> list[str]:
        drawn = Drawn[str](num, 3)
        for name in order:
            drawn.offer(name, lambda name=name: name)
        assert drawn.num_offered == len(order)
        return drawn.things

    order = sorted(names)
    first = draw(order)
    assert len(first) == min(num, len(order))
    rng.shuffle(order)
    assert draw(order) == first


def test_each_has_the_same_chance_to_be_drawn() -> None:
    counts = Counter[int]()
    for seed in range(400):
        drawn = Drawn[int](5, seed)
        for i in range(20):
            drawn.offer(f"draft {i}", lambda i=i: i)
        counts.update(drawn.things)
    assert all(60 < counts[i] < 140 for i in range(20)), "100 each, with a deviation of 8.7"


def shown(prompt: str, task: str = "words") -> ShownDraft:
    return ShownDraft.of(made(prompt, task=task), NO_WORDS)


def test_the_nearest_seed_is_that_of_all_comparisons() -> None:
    rng = random.Random(5)
    drafts = [shown(" ".join(rng.choices("abcdef", k=rng.randint(4, 9))), rng.choice("xy")) for _ in range(60)]
    seeds = [shown(" ".join(rng.choices("abcdef", k=rng.randint(4, 9))), rng.choice("xyz")) for _ in range(40)]

    def rouge(one: list[str], other: list[str]) -> float:
        table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, a in enumerate(one):
            for k, b in enumerate(other):
                table[i + 1][k + 1] = table[i][k] + 1 if a == b else max(table[i][k + 1], table[i + 1][k])
        return 2 * table[-1][-1] / (len(one) + len(other))

    found = nearest_seeds(drafts, seeds)
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
    by_draft = {id(one.draft): one for one in found}
    for draft in drafts:
        best = max(rouge(draft.compared, seed.compared) for seed in seeds if seed.task == draft.task)
        assert by_draft[id(draft)].similarity == pytest.approx(best)


def test_variety_is_counted_over_equally_many_words() -> None:
    alike = [shown(f"Sort the numbers {i} and {i}") for i in range(10)]
    varied = [shown(text) for text in ("Write a poem", "Explain rain", "写一首诗", "اكتب قصيدة", "Write a letter")]
    one, other = varieties(alike, varied)
    assert [(first.word, first.num) for first in one.first_words] == [("sort", 10)]
    assert one.first_words[0].seconds == [("the", 10)]
    assert (other.num_first, other.num_pairs) == (4, 4)
    assert other.first_words[0].word == "write"
    num_words = sum(len(draft.prompt_words) for draft in varied)
    assert one.num_words == other.num_words == num_words
    counted = [word for draft in alike for word in draft.prompt_words][:num_words]
    assert one.distinct[0] == len({*counted}) / num_words
    assert one.distinct[1] < other.distinct[1]
    assert varieties([], alike)[0].distinct == [0.0, 0.0, 0.0]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_runs_nothing_of_what_teachers_say(tmp_path: Path) -> None:
    page_of(tmp_path / "made", [made(text, text) for text in HOSTILE])
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    address = (tmp_path / "made" / "construct.html").as_uri()
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=60, check=True)
    assert "<title>made – constructed data</title>" in done.stdout
    assert "<script" not in done.stdout
    assert "<img" not in done.stdout


def test_calls_are_shown_where_an_answer_has_no_text() -> None:
    draft = made("What is the weather?")
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}
    with_call = Draft(
        (draft.messages[0], {"role": "assistant", "content": "", "tool_calls": [call]}), "words", draft.provenance
    )
    assert '"city": "Bonn"' in ShownDraft.of(with_call, NO_WORDS).answer
