"""What fell below the model that a run began with is found: a share by its difference, a loss by its part."""

from pathlib import Path

import pytest

from sft.answering.answer import Answer
from sft.config_evaluation import RetainConfig
from sft.evaluation.forgetting import falls_in_words, find_falls
from sft.evaluation.judged_answers import JudgedAnswer, write_judged
from sft.evaluation.scores import LOSS, TOKEN_ACCURACY, Evaluation, TaskScores
from sft.scoring.metric import Metric

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


def test_of_answers_the_paired_difference_is_said(tmp_path: Path) -> None:
    """Of 40 answers, those to the first questions became wrong; those with shots say nothing about those without."""
    retain, paths = RetainConfig(tasks=("copy",), score="exact_match"), (tmp_path / "base", tmp_path / "now")
    metric = Metric("exact match", "exact match", "higher", "num_judged", is_share=True)
    for path, num_wrong in zip(paths, (10, 22), strict=True):
        verdicts = [(i, shots, float(i >= num_wrong or shots > 0)) for i in range(40) for shots in (0, 3)]
        write_judged(path, [judged(*verdict) for verdict in verdicts])
    base, now = (
        Evaluation("x", {"exact_match": metric}, {}, {"copy": TaskScores({"exact_match": v, "num_judged": 40}, False)})
        for v in (0.75, 0.45)
    )
    [fall] = find_falls(base, now, retain, {"task copy": ("copy",)}, paths)
    assert fall.difference is not None
    assert fall.difference.value == pytest.approx(-0.3)
    assert fall.difference.low < -0.3 < fall.difference.high < 0
    assert "; paired, -0.300 [-0." in falls_in_words([fall], now, retain)
    [of_loss] = find_falls(
        measured(2.0, 2.0, "loss"),
        measured(3.0, 2.0, "loss"),
        RetainConfig(tasks=("copy",)),
        {"task copy": ("copy",)},
        paths,
    )
    assert of_loss.difference is None


def judged(number: int, shots: int, score: float) -> JudgedAnswer:
    record = f"words/{number}"
    answer = Answer(key=f"{record}@{shots}", text="x", raw="x")
    return JudgedAnswer(
        record=record,
        shots=shots,
        num_shown=shots,
        task="copy",
        unseen=False,
        score_name="exact_match",
        score=score,
        scores={"exact_match": score},
        note="",
        answer=answer,
    )
