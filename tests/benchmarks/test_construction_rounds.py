"""What a reviewed sample teaches the next round, and what the reviewer does in a browser."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.construction_demo.reviewer import review
from benchmarks.construction_demo.rounds import ACCEPTED, LEAST_SEEN, Plan, Seen, lesson, read_sample
from benchmarks.learning.zoo.records import draw_records, write_lines
from benchmarks.learning.zoo.tasks import TASKS
from tests.review.browser import needs_browser

WRONG = "wrong answer"


def seen(task: str, loss: float, right: int, wrong: int = 0) -> list[Seen]:
    return [Seen(task, loss, ACCEPTED)] * right + [Seen(task, loss, WRONG)] * wrong


def test_a_lesson_keeps_what_was_right_and_nothing_that_was_not_seen() -> None:
    sample = [*seen("known", 0.01, 20), *seen("unknown", 0.01, 10, 10), *seen("rare", 0.01, LEAST_SEEN - 1)]
    assert lesson(Plan(("known", "rare", "unknown")), sample) == Plan(("known",), None)


def test_a_lesson_drops_by_the_loss_what_drops_the_errors() -> None:
    sample = [*seen("half", 0.005, 20), *seen("half", 0.5, 2, 20), *seen("sure", 0.2, 12)]
    assert lesson(Plan(("half", "sure")), sample) == Plan(("half", "sure"), 0.3)
    assert lesson(Plan(("half", "sure"), 0.1), seen("half", 0.005, 20, 9) + seen("half", 0.002, 9)) == Plan(
        ("half",), 0.003
    )


def test_where_nothing_is_known_or_nothing_is_new_there_is_no_lesson() -> None:
    assert lesson(Plan(("unknown",)), seen("unknown", 0.01, 10, 10)) is None
    assert lesson(Plan(("known",)), seen("known", 0.01, 30, 1)) is None
    assert lesson(Plan(("known",)), []) is None


@pytest.mark.long
@needs_browser
def test_a_sample_is_read_until_it_stands_for_all(tmp_path: Path) -> None:
    wrong = {3, 17, 31}
    made = [
        {
            "messages": [
                {"role": "user", "content": f"{record['instruction']}\n\n{record['input']}"},
                {"role": "assistant", "content": "whence" if place in wrong else record["output"]},
            ],
            "task": record["task"],
            "provenance": {"recipe": "magpie", "scores": {"loss": 0.5 if place in wrong else 0.1}},
        }
        for place, record in enumerate(draw_records(TASKS["sort_letters"], 60, set(), 7))
    ]
    write_lines(tmp_path / "records.jsonl", made)
    review(tmp_path, tmp_path / "browser", tmp_path / "page.png", lambda text: None, bound=0.25)
    result, read = read_sample(tmp_path, 0.25)
    assert result.suffices
    assert 10 < len(read) == result.num_reviewed < 60, "the others are not read"
    assert [one.reason == ACCEPTED for one in read] == [one.loss < 0.5 for one in read], "the wrong ones are rejected"
    assert result.num_wrong == sum(one.reason == WRONG for one in read)
    assert (tmp_path / "page.png").stat().st_size > 1000
    review(tmp_path, tmp_path / "browser", tmp_path / "page.png", lambda text: None)
    assert Counter(one.reason for one in read_sample(tmp_path)[1]) == {ACCEPTED: 57, WRONG: 3}
