"""Compares what plain transformers makes of a folder with what the trained model makes, in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sft.parity.case import Case
from sft.parity.own_computation import OwnCase
from sft.parity.parity_result import Check
from sft.parity.plain_process import PlainCase, PlainResult
from sft.parity.tolerance import Tolerance, tolerance_of

TokenIds = tuple[int, ...]
_AROUND = 6
"""Tokens before a difference that are shown."""


@dataclass(frozen=True)
class Shown:
    """Tokens in messages."""

    text_of: Callable[[Sequence[int]], str]

    def token(self, ids: Sequence[int], at: int) -> str:
        """A token by its text and its id."""
        return f"{self.text_of([ids[at]])!r} ({ids[at]})" if at < len(ids) else "nothing"

    def before(self, ids: Sequence[int], at: int) -> str:
        """What stands before it."""
        return repr(self.text_of(ids[max(0, at - _AROUND) : at]))


def compare_prompts(cases: Sequence[Case], plain: Sequence[PlainCase], shown: Shown) -> Check:
    """Token ids of the folder's chat template, against those of training."""
    firsts, num, dated = [], 0, 0
    for case, found in zip(cases, plain, strict=True):
        if found.refused:
            num += 1
            firsts.append(f"{case.name}: the folder's template refuses the conversation: {found.refused}")
        elif found.prompt_ids is not None:
            num += 1
            if case.prompt_ids == found.prompt_ids:
                continue
            if case.prompt_ids == found.dated_prompt_ids:
                dated += 1
                continue
            at = _first_difference(case.prompt_ids, found.prompt_ids)
            firsts.append(
                f"{case.name}: at token {at} of the prompt, behind {shown.before(case.prompt_ids, at)}, the folder's "
                f"template writes {shown.token(found.prompt_ids, at)}; training saw {shown.token(case.prompt_ids, at)}"
            )
    note = "the template writes today's date; all prompts of training have the same one, 26 July 2024"
    return Check("prompts", num, len(firsts), firsts[0] if firsts else "", (note,) if dated else ())


def compare_ends(plain: PlainResult, expected: Sequence[int], learned: Sequence[int], shown: Shown) -> Check:
    """The tokens at which `generate` ends, against those that end answers in training."""
    ends = set(plain.eos_token_id)
    notes = () if plain.pad_token_id is not None else ("no pad token is named: batches of prompts need one",)
    if ends == set(expected):
        return Check("ends", len(expected), 0, "", notes)
    lost = [token for token in learned if token not in ends]
    what = "generation_config.json ends answers at " + _listed(sorted(ends), shown)
    right = _listed(lost or sorted(expected), shown)
    text = f"{what}; training ends them at {right}" if lost else f"{what}; the run writes {right}"
    return Check("ends", len(expected), len(ends ^ set(expected)), text, notes)


def _listed(ids: Sequence[int], shown: Shown) -> str:
    return ", ".join(shown.token([token], 0) for token in ids) or "nothing"


def compare_dtype(plain: PlainResult, expected: str) -> Check:
    """The dtype in which transformers loads the folder."""
    is_same = plain.dtype == expected
    text = f"transformers loads the folder in {plain.dtype}, as config.json says; it was exported in {expected}"
    return Check("dtype", 1, int(not is_same), "" if is_same else text)


def compare_log_probs(
    cases: Sequence[Case], plain: Sequence[PlainCase], own: Sequence[OwnCase], dtype: str, shown: Shown
) -> tuple[Check, Tolerance]:
    """Log-probabilities of the given answers' tokens."""
    rows = [
        (case, at, p, o, abs(o - r))
        for case, of_plain, of_own in zip(cases, plain, own, strict=True)
        for at, (p, o, r) in enumerate(zip(of_plain.log_probs, of_own.log_probs, of_own.rounded, strict=True))
    ]
    allowed = tolerance_of(dtype, [row[-1] for row in rows])
    if not rows:
        return Check("log-probabilities", 0, 0, "", ("there is nothing to compare",)), allowed
    gaps = [abs(p - o) for _, _, p, o, _ in rows]
    mean = sum(gaps) / len(gaps)
    # A comparison with a number that is not one is false.
    wrong = [i for i, gap in enumerate(gaps) if not gap <= allowed.token]
    if not wrong and not mean <= allowed.mean:
        wrong = [max(range(len(gaps)), key=gaps.__getitem__)]
    facts = {
        "mean_nats": mean,
        "largest_nats": max(gaps),
        "allowed_mean_nats": allowed.mean,
        "allowed_token_nats": allowed.token,
    }
    text = ""
    if wrong:
        case, at, p, o, _ = rows[wrong[0]]
        place = case.start + at
        text = (
            f"{case.name}: the token {shown.token(case.ids, place)} at {place}, behind "
            f"{shown.before(case.ids, place)}, has the log-probability {p:.4f} in plain transformers and {o:.4f} here; "
            f"{allowed.token:.2g} is allowed. On average {mean:.2g} of {allowed.mean:.2g} nats."
        )
    return Check("log-probabilities", len(gaps), len(wrong), text, (), facts), allowed


def compare_answers(
    cases: Sequence[Case],
    plain: PlainResult,
    own: Sequence[OwnCase],
    allowed: Tolerance,
    prefer: Callable[[Case, TokenIds, int, int], tuple[float, float]],
    shown: Shown,
) -> Check:
    """Greedy answers, token for token.

    Args:
        cases: what was asked.
        plain: what transformers wrote.
        own: what the trained model wrote.
        allowed: tokens whose log-probabilities differ by less than rounding are a tie.
        prefer: (case, tokens so far, two tokens) → their log-probabilities here.
        shown: writes tokens.
    """
    firsts, ties, reshaped = [], 0, 0
    for case, found, mine in zip(cases, plain.cases, own, strict=True):
        reshaped += found.own_answer is not None and found.own_answer != found.answer
        if found.answer == mine.answer:
            continue
        at = _first_difference(found.answer, mine.answer)
        theirs, ours = shown.token(found.answer, at), shown.token(mine.answer, at)
        where = (
            f"{case.name}: at token {at} of the answer, behind {shown.before(mine.answer, at) if at else 'the prompt'}"
        )
        if at < min(len(found.answer), len(mine.answer)):
            pair = prefer(case, mine.answer[:at], found.answer[at], mine.answer[at])
            if abs(pair[1] - pair[0]) <= allowed.token and _is_close(found.best[at], mine.answer[at], allowed):
                ties += 1
                continue
            probs = f"; here their log-probabilities are {pair[0]:.4f} and {pair[1]:.4f}"
        else:
            probs = ": one of them ends there" if min(len(found.answer), len(mine.answer)) == at else ""
        firsts.append(f"{where}, plain transformers writes {theirs} and the trained model {ours}{probs}")
    notes = []
    if ties:
        notes.append(f"{ties} of {len(cases)} answers part at two tokens that are equally probable to within rounding")
    if reshaped:
        settings = ", ".join(f"{name}={value}" for name, value in plain.shaping.items())
        notes.append(f"{settings} of generation_config.json changes {reshaped} of {len(cases)} answers")
    return Check("answers", len(cases), len(firsts), firsts[0] if firsts else "", tuple(notes))


def _is_close(best: Sequence[tuple[int, float]], token: int, allowed: Tolerance) -> bool:
    """Whether a token is among the most probable ones by as little as rounding."""
    return any(other == token and best[0][1] - value <= allowed.token for other, value in best)


def _first_difference(a: Sequence[Any], b: Sequence[Any]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
