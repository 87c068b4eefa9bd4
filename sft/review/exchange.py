"""Records and decisions in the forms of other tools, for teams that review elsewhere.

    RecordSet ──export_records──▶ tasks of Label Studio, or records of Argilla ──people──▶ import_decisions ──▶ Decision

What is read again is a verdict (accept, reject, flag or skip), a reason and the answer: another answer than the one
that was given out is an edit. What is said later counts, wherever it stands in the file; what is not understood is
refused, since without a part of it the rest might say something else. A file ending in .json holds a list, any other a
line each; both are read. docs/REVIEW.md has the labelling interface that fits.
"""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args

from sft.approval.decisions import Decision, DecisionFile, whole_decisions
from sft.approval.own_files import construction_of
from sft.atomic_files import write_lines
from sft.errors import UserError
from sft.json_lines import json_line
from sft.review.answered import IMPORTED, Answered
from sft.review.argilla import read_argilla, write_argilla
from sft.review.label_studio import read_label_studio, write_label_studio
from sft.review.refusals import Refused
from sft.review.session import ReviewSession
from sft.review.shown_record import Text, texts_of
from sft.schema import JsonObject

Form = Literal["label-studio", "argilla"]
FORMS: tuple[Form, ...] = get_args(Form)

_WRITERS: Mapping[Form, Callable[[str, str, list[Text], str], dict[str, Any]]] = {
    "label-studio": write_label_studio,
    "argilla": write_argilla,
}
_READERS: Mapping[Form, Callable[[JsonObject], Iterator[Answered]]] = {
    "label-studio": read_label_studio,
    "argilla": read_argilla,
}


def export_records(session: ReviewSession, form: Form, path: Path) -> int:
    """Write every record as it is now, after its edits; returns their number.

    Raises:
        UserError: that file is the records' own, or of a construction.
        OSError: the file cannot be written.
    """
    _check_is_another(path, session)
    lines = []
    for record, task, fields in session.versions():
        answer = session.form.answer(fields)
        lines.append(json_line(_WRITERS[form](record, task, texts_of(fields), answer.text if answer else "")))
    is_list = path.suffix == ".json"
    parts = [f"{line.rstrip()}{',' if i < len(lines) else ''}\n" for i, line in enumerate(lines, 1)]
    write_lines(path, ["[\n", *parts, "]\n"] if is_list else lines)
    return len(lines)


def write_approved(session: ReviewSession, path: Path) -> int:
    """Write the records that may be trained, after their edits, by the rule of the session; returns their number.

    Raises:
        UserError: there are none, a decision cannot be read, or that file is the records' own, or of a construction.
        OSError: the file cannot be written.
    """
    _check_is_another(path, session)
    records, decisions = session.place
    whole_decisions(decisions, decisions.read_bytes() if decisions.is_file() else b"")
    lines = [json_line(fields) for fields in session.approved()]
    if not lines:
        way_out = f"sft review {shlex.quote(str(records))}"
        raise UserError(f"No record of {records} is approved. Review them first: `{way_out}`.")
    write_lines(path, lines)
    return len(lines)


def _check_is_another(path: Path, session: ReviewSession) -> None:
    if path.resolve() in [own.resolve() for own in session.place]:
        raise UserError(f"{path} is a file of the set that is exported: give another one.")
    if (folder := construction_of(path.resolve())) is not None:
        raise UserError(
            f"{path} lies in {folder}, a folder of `sft construct`, whose log holds what was paid: give a file "
            f"elsewhere."
        )


def import_decisions(session: ReviewSession, form: Form, path: Path) -> Counter[str]:
    """Take the decisions of a file; what was taken before is not taken again.

    What somebody says of a record counts anew where it is not the last that was taken of them: who rejects, accepts and
    rejects again says three things, though the third is equal to the first.

    Returns:
        What became of them, in words, and of how many.

    Raises:
        UserError: the file cannot be read, or holds no decision.
    """
    outcomes: Counter[str] = Counter()
    taken = _taken(session)
    left: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    """Reviewer and record → the names of what the file has of them, from here on."""
    found = [answered for content in _read(path) for answered in _READERS[form](content)]
    found.sort(key=attrgetter("when"))
    for answered in found:
        left[answered.reviewer, answered.record].append(answered.name)
    for answered in found:
        pair = answered.reviewer, answered.record
        if _goes_on(taken[pair], left[pair]):
            outcomes["taken before"] += 1
        else:
            num_before = taken[pair].count(answered.name)
            name = f"{answered.name}-{num_before + 1}" if num_before else answered.name
            try:
                is_new = _take(session, answered, name)
                taken[pair].append(answered.name)
                outcomes["taken" if is_new else "taken before"] += 1
            except Refused as refusal:
                outcomes[f"not taken: {refusal}"] += 1
                if len(left[pair]) == 1 and _has_approved(session, answered):
                    # Whatever their last word is, it is not that approval any more.
                    with suppress(Refused):
                        skip = Answered(answered.record, answered.reviewer, "skip", str(refusal))
                        _take(session, skip, name)
                        taken[pair].append(answered.name)
        del left[pair][0]
    if not outcomes:
        raise UserError(
            f"{path} holds no decision: it is no export of {form} in which somebody has decided. Of Label Studio, give "
            f"the export that it calls JSON."
        )
    return outcomes


def _taken(session: ReviewSession) -> defaultdict[tuple[str, str], list[str]]:
    """Reviewer and record → the names of what was taken of them from other tools, in order."""
    taken: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for decision in DecisionFile(session.place.decisions).read_new():
        if decision.name.startswith(IMPORTED):
            name = IMPORTED + decision.name.split("-")[1]  # without the number of one that has come back
            taken[decision.reviewer, decision.record].append(name)
    return taken


def _goes_on(taken: list[str], left: list[str]) -> bool:
    """Whether what is left of a file begins with the end of what was taken: a tool exports all that it has each time.

    taken [a, b], left [b, c]: b was taken.    taken [a, b], left [a]: it is said again.
    """
    known = [name for name in left if name in taken]  # what was refused stays in the file, and was never taken
    return left[0] in taken and any(taken[-num:] == known[:num] for num in range(1, len(known) + 1))


def _take(session: ReviewSession, answered: Answered, name: str) -> bool:
    """Take a decision; False if it was taken before.

    Whoever skips a record in another tool has no decision on it there any more: none that was taken of them counts, as
    if the file had come only once.
    """
    given = {**_as_given(session, answered), "name": name}
    for said in reversed(_imported(session, answered) if answered.verdict == "skip" else []):
        undo = {"name": f"undo-{said.name}", "record": said.record, "verdict": "undo", "undoes": said.name}
        session.take(undo, answered.reviewer)
    return session.take(given, answered.reviewer)


def _has_approved(session: ReviewSession, answered: Answered) -> bool:
    return any(said.verdict in ("accept", "edit") for said in _imported(session, answered)[-1:])


def _imported(session: ReviewSession, answered: Answered) -> list[Decision]:
    """What was taken of somebody on a record and not taken back, but skips."""
    words = session.words(answered.record, answered.reviewer)
    return [said for said in words if said.name.startswith(IMPORTED) and said.verdict != "skip"]


def _as_given(session: ReviewSession, answered: Answered) -> dict[str, Any]:
    if answered.unclear:
        raise Refused(answered.unclear)
    if answered.verdict == "accept" and answered.answer is None and answered.given_out:
        raise Refused("it has no answer: that was emptied, or the interface has no field for it")
    given = answered._asdict()
    fields = session.fields(answered.record)
    if answered.verdict != "accept" or answered.answer in (None, answered.given_out) or fields is None:
        return given
    own = session.form.answer(fields)
    if own is None or answered.given_out not in (None, own.text):
        raise Refused("what was edited is not the answer of the record, but another text or none: export it again")
    return {**given, "verdict": "edit", "texts": {own.place: answered.answer}}


def _read(path: Path) -> Iterator[JsonObject]:
    try:
        text = path.read_text(encoding="utf-8")
        contents = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(x) for x in text.split("\n") if x.strip()]
        )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is neither a list in JSON nor lines of JSON: {error}.") from error
    yield from (content for content in contents if isinstance(content, dict))
