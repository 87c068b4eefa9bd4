"""Where answers lie, and what a judging model said of them: beside the evaluation that they belong to."""

from pathlib import Path


def answers_of(evaluation: Path) -> Path:
    """The answers that belong to an evaluation, beside it."""
    return evaluation.with_name(f"{evaluation.stem}.answers.jsonl")


def replies_of(answers: Path) -> Path:
    """What a judging model said of these answers, beside them."""
    return answers.with_name(f"{answers.name.removesuffix('.answers.jsonl')}.replies.jsonl")


def pairs_of(evaluation: Path, other: Path) -> tuple[Path, Path]:
    """Beside two evaluations, the verdicts on pairs of their answers, and what the judging model said."""
    stem = f"{evaluation.stem}-against-{other.stem}"
    return evaluation.with_name(f"{stem}.pairs.jsonl"), evaluation.with_name(f"{stem}.replies.jsonl")


def marks_of(asked: Path) -> tuple[Path, Path]:
    """In a folder of `RunFolder.asked`, the grades of answers that people marked, and what the judging model said."""
    return asked / "marks.jsonl", asked / "marks.replies.jsonl"


def preferences_of(asked: Path) -> tuple[Path, Path]:
    """The same of pairs of answers of which people prefer one."""
    return asked / "preferences.pairs.jsonl", asked / "preferences.replies.jsonl"
