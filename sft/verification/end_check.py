"""Checks the end of a stage against its evaluations: that it ended early by its rule, and which step is the best."""

from sft.evaluation.best_step import Curve, Measured, read_curve
from sft.run_folder import RunFolder, StageFolder
from sft.stage_end import BestStep, StageEnd
from sft.verification.findings import Findings, Kind


def check_end(run: RunFolder, stage: StageFolder, end: StageEnd, findings: Findings) -> None:
    """Decide again from the evaluations what `stage.json` says of an early end and of the best step."""
    if end.best is None and not end.is_early:
        return
    for problem in _problems(run, stage, end):
        findings.add(Kind.STEPS, f"stage {end.stage}: {problem}")


def _problems(run: RunFolder, stage: StageFolder, end: StageEnd) -> list[str]:
    best = end.best
    if best is None:
        return [f"{stage.complete.name} says that it ended early, but not which step was the best"]
    try:
        within = read_curve(run, stage, best.score, best.task, end.num_steps)
        whole = read_curve(run, stage, best.score, best.task, end.num_steps, with_end=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"its evaluations cannot be read, so its end cannot be checked: {error}"]
    return [*_problems_of_best(best, whole), *_problems_of_rule(end, within)]


def _problems_of_best(best: BestStep, curve: Curve) -> list[str]:
    ranked = curve.ranked()
    named = Measured(best.step, best.value)
    if named not in ranked:
        return [f"its best step is said to be {best.step}, with a {best.what} of {best.value:g}; no evaluation says so"]
    better = {point.step for point in ranked[: ranked.index(named)]}
    if better == {*best.passed_over}:
        return []
    found = ", ".join(map(str, sorted(better))) or "none"
    given = ", ".join(map(str, sorted(best.passed_over))) or "none"
    return [f"its best step is said to be {best.step}; better by the evaluations: {found}; had no checkpoint: {given}"]


def _problems_of_rule(end: StageEnd, curve: Curve) -> list[str]:
    if end.num_flat is None:
        return []
    last = curve.points[-1].step if curve.points else 0
    if last == end.num_steps and curve.num_flat >= end.num_flat:
        return []
    return [
        f"it ended early, after step {end.num_steps}, because {end.num_flat} evaluations in a row were not better; by "
        f"its evaluations there were {curve.num_flat} up to step {last}"
    ]
