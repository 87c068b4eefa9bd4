"""What fell below the model that a run began with is found: a share by its difference, a loss by its part."""

import pytest

from sft.config_evaluation import RetainConfig
from sft.evaluation.forgetting import falls_in_words, find_falls
from sft.evaluation.scores import LOSS, TOKEN_ACCURACY, Evaluation, TaskScores

METRICS = {"loss": LOSS, "token_accuracy": TOKEN_ACCURACY}
RETAINED = {"task copy": ("copy",), "source words": ("copy", "sort"), "task gone": ("gone",)}


def measured(copy: float, sort: float, metric: str) -> Evaluation:
    tasks = {
        name: TaskScores({metric: value, "num_supervised_tokens": count}, unseen=False)
        for name, value, count in (("copy", copy, 10), ("sort", sort, 30))
    }
    return Evaluation("x", METRICS, {}, tasks)


@pytest.mark.parametrize(
    ("score", "first", "last", "fallen"),
    [
        ("loss", (2.0, 2.0), (2.03, 2.0), []),
        ("loss", (2.0, 2.0), (2.05, 2.0), ["task copy"]),
        ("loss", (2.0, 2.0), (2.0, 2.1), ["source words"]),
        ("loss", (2.0, 2.0), (1.0, 1.0), []),
        ("token_accuracy", (0.5, 0.5), (0.485, 0.5), []),
        ("token_accuracy", (0.5, 0.5), (0.45, 0.48), ["task copy", "source words"]),
        ("token_accuracy", (0.5, 0.5), (0.9, 0.9), []),
    ],
)
def test_what_fell_by_more_than_it_may_is_named(
    score: str, first: tuple[float, float], last: tuple[float, float], fallen: list[str]
) -> None:
    retain = RetainConfig(tasks=("copy",), score=score, max_drop=0.02)
    now = measured(*last, score)
    falls = find_falls(measured(*first, score), now, retain, RETAINED)
    assert [fall.name for fall in falls] == fallen
    for fall in falls:
        assert fall.name in falls_in_words(falls, now, retain)


def test_a_fall_is_said_as_tables_show_changes() -> None:
    retain = RetainConfig(tasks=("copy",), max_drop=0.02)
    now = measured(2.1, 2.0, "loss")
    text = falls_in_words(find_falls(measured(2.0, 2.0, "loss"), now, retain, {"task copy": ("copy",)}), now, retain)
    assert text.endswith("max_drop (0.02): task copy: loss 2.000 → 2.100 (+5.0%)")
    shares = RetainConfig(tasks=("copy",), score="token_accuracy", max_drop=0.02)
    now = measured(0.4, 0.5, "token_accuracy")
    falls = find_falls(measured(0.5, 0.5, "token_accuracy"), now, shares, {"task copy": ("copy",)})
    assert falls_in_words(falls, now, shares).endswith("50.0% → 40.0% (−10.0 pp)")
