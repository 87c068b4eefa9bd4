"""Records that a teacher has made, or that stand in a constructed source: only approved ones are trained, and counted
by who made and who approved them.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sft.approval.mark import Approval, approval_of, why_unapproved
from sft.approval.own_files import construction_of
from sft.approval.record_set import beside_content
from sft.config import SourceConfig, TaskColumn
from sft.data.reading.sources import read_records
from sft.draft import is_made
from sft.errors import UserError
from sft.printable import counted
from sft.schema import JsonObject, Record
from sft.url_secrets import without_secrets

Fact = tuple[str, str]
"""What is counted, and its value: ("recipe", "self_instruct")."""
_OF_PROVENANCE = ("recipe", "teacher", "prompts")
_MOST_VALUES = 50
_MOST_CHARS = 200
_OTHERS = "others"


def needs_approval(fields: JsonObject, source: SourceConfig) -> bool:
    """Whether people have to have approved a record of this source."""
    return source.constructed or is_made(fields)


def is_unapproved(fields: JsonObject, source: SourceConfig) -> bool:
    """Whether a record needs an approval and has none."""
    return needs_approval(fields, source) and approval_of(fields) is None


def approval_to_train(fields: JsonObject, source: SourceConfig) -> Approval | None:
    """The approval of all that this source trains of a record; None where there is none."""
    return None if _trained_beside(fields, source) else approval_of(fields)


def _trained_beside(fields: JsonObject, source: SourceConfig) -> list[str]:
    """The columns that a source trains, and that people approve nothing of: the record's id does not cover them."""
    named = {*source.columns.values(), *([source.task.column] if isinstance(source.task, TaskColumn) else [])}
    return sorted(named & beside_content(fields))


def why_refused(fields: JsonObject, source: SourceConfig) -> str:
    """Why a record that needs an approval and has none is not trained."""
    if beside := _trained_beside(fields, source):
        return (
            f"its column {beside[0]!r} is trained here, but what people approve is the rest of the record. Give the "
            f"column another name in the file, and have it reviewed"
        )
    return f"a teacher has made it, and {why_unapproved(fields)}: people approve it with `sft review`"


def facts_of(fields: JsonObject, approval: Approval | None) -> list[Fact]:
    """What is counted of a record that needs an approval; `approval`: the one that it has."""
    provenance = fields.get("provenance")
    facts = [("record", "approved" if approval else "unreviewed")]
    if isinstance(provenance, Mapping):
        facts += [(name, str(provenance[name])[:_MOST_CHARS]) for name in _OF_PROVENANCE if provenance.get(name)]
    if approval is not None:
        facts += [("rule", approval.rule), *(("reviewer", who) for who in approval.reviewers)]
        facts += [("day", approval.time[:10])] if approval.time else []
    return facts


def as_manifest(counts: Mapping[Fact, int]) -> dict[str, Any]:
    """The counts of a source, as manifests keep them; empty where no record needs an approval.

    `num`, `num_unreviewed`, and by value `recipes`, `teachers`, `prompts`, `rules`, `reviewers`; `days`: the first and
    the last on which people approved.
    """
    by_name: dict[str, Counter[str]] = {}
    for (name, value), num in counts.items():
        by_name.setdefault(name, Counter())[value] += num
    records = by_name.pop("record", Counter[str]())
    if not records:
        return {}
    days = sorted(by_name.pop("day", ()))
    values = {f"{name.removesuffix('s')}s": _commonest(found) for name, found in sorted(by_name.items())}
    shown = {"days": [days[0], days[-1]]} if days else {}
    return {"num": records.total(), "num_unreviewed": records["unreviewed"], **values, **shown}


def _commonest(found: Counter[str]) -> dict[str, int]:
    """The most frequent values; a file of others may have a new one in each record."""
    shown = dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:_MOST_VALUES])
    rest = found.total() - sum(shown.values())
    return {**shown, _OTHERS: rest} if rest else shown


def joined(counts: Iterable[tuple[str, str, int]]) -> Counter[Fact]:
    """Counts as the parts of a store hold them."""
    total: Counter[Fact] = Counter()
    for name, value, num in counts:
        total[name, value] += num
    return total


def made_of_run(manifest: Mapping[str, Any], passed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Source → what is known of its made records: counts of the store, and what became of the constructed ones.

    Args:
        manifest: of the token store; that of an earlier version counts nothing.
        passed: see `sft.approval.gate.Gated`.
    """
    made = manifest.get("made", {})
    names = [name for name in manifest["sources"] if name in made or name in passed]
    return {name: {**made.get(name, {}), **passed.get(name, {})} for name in names}


def refuse_unapproved(sources: Sequence[SourceConfig]) -> NoReturn:
    """Refuse sources that are known to hold made records that nobody has approved.

    Raises:
        UserError: always; with the number of them, and what to do, of all sources at once.
    """
    problems = []
    for source in sources:
        num_read = num = 0
        for record in read_records(source):
            num_read += 1
            num += isinstance(record, Record) and is_unapproved(record.fields, source)
        folder = construction_of(Path(source.path))
        path = str(folder) if folder and "://" not in source.path else without_secrets(source.path)
        problems.append(
            f"data.sources.{source.name}: {num:,} of {counted(num_read, 'record')} of {path} are made by a teacher, "
            "and nobody has approved them as they are.\n"
            f"  People approve them: sft review {shlex.quote(path)}\n"
            f"  The source is then {{path: {path}, constructed: true}}.\n"
            "  To train on what nobody has approved: --unreviewed, which the report and the model's card say."
        )
    raise UserError("\n".join(problems))
