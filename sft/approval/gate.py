"""What of a constructed source is trained: the records that people have approved, as a file in the cache.

    folder of `sft construct`, or NAME.jsonl ─┐
    decisions of `sft review` ────────────────┴──▶ CACHE/approved/KEY/records.jsonl, and in its manifest the counts

The key is the hash of records, decisions and rule. A source reads that file, so whatever is computed from the content
of a source follows what people decide: one decision more, or one taken back, is another file.
"""

import hashlib
import shlex
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from sft.approval.approved import approvals, records_to_train
from sft.approval.decisions import Decision, is_unfinished, whole_decisions
from sft.approval.opinions import Opinions
from sft.approval.own_files import RECORDS
from sft.approval.record_order import by_sample
from sft.approval.record_set import Place, RecordSet, find_place, open_records
from sft.approval.rule import SampleResult, sample_result
from sft.atomic_files import (
    check_files,
    fingerprint,
    hash_file,
    is_published,
    publish_folder,
    read_manifest,
    write_lines,
    written_aside,
)
from sft.config import DataConfig, SourceConfig
from sft.config_sources import SampleRule
from sft.errors import UserError
from sft.json_lines import json_line
from sft.printable import counted

_VERSION = 2


class Gated(NamedTuple):
    """The sources as they are read, and what became of the records of the constructed ones."""

    data: DataConfig
    passed: Mapping[str, Mapping[str, Any]]
    """Source → `num_read`, `num_passed`, `left_out` with the number of each state, `sample`, and hashes."""


def pass_gate(data: DataConfig) -> Gated:
    """Let constructed sources read what is approved of them, and nothing else.

    Raises:
        UserError: of a source nothing is approved, its sample does not suffice, or it cannot be read. Of all sources at
            once.
    """
    sources: list[SourceConfig] = []
    passed: dict[str, Mapping[str, Any]] = {}
    problems: list[str] = []
    for source in data.sources:
        if not source.constructed:
            sources.append(source)
            continue
        try:
            path, passed[source.name] = _pass(source, data)
            sources.append(source.model_copy(update={"path": str(path)}))
        except UserError as error:
            problems.append(f"data.sources.{source.name}: {error}")
        except OSError as error:
            reason = f"{error.filename or source.path}: {error.strerror or error}"
            problems.append(f"data.sources.{source.name}: its approved records cannot be gathered: {reason}")
    if problems:
        raise UserError("\n".join(problems))
    return Gated(data.model_copy(update={"sources": tuple(sources)}), passed)


def _pass(source: SourceConfig, data: DataConfig) -> tuple[Path, Mapping[str, Any]]:
    """The file that the source reads, made if it is not there, and its facts."""
    place = find_place(Path(source.path).expanduser())
    rule = source.approve if isinstance(source.approve, SampleRule) else None
    said = place.decisions.read_bytes() if place.decisions.is_file() else b""
    hashes = {"records": hash_file(place.records), "decisions": hashlib.sha256(said).hexdigest()}
    about = {"rule": rule.model_dump() if rule else "each", "unreviewed": data.unreviewed, "sha256": hashes}
    final = data.cache_dir.expanduser() / "approved" / fingerprint({"version": _VERSION, **about})
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_name(f".{final.name}.lock")):
        if is_published(final) and check_files(final):
            shutil.rmtree(final)
        if not is_published(final):
            _publish(final, place, rule, whole_decisions(place.decisions, said), about)
    manifest = read_manifest(final)
    facts = {name: value for name, value in manifest.items() if name not in ("kind", "files")}
    return final / RECORDS, {**facts, **({"is_unfinished": True} if is_unfinished(said) else {})}


def _publish(
    final: Path, place: Place, rule: SampleRule | None, decisions: list[Decision], about: Mapping[str, Any]
) -> None:
    records = open_records(place.records)
    opinions = Opinions(records, decisions)
    entries = records.entries if rule is None else by_sample(records.entries, rule.seed)
    order, bound = [entry.id for entry in entries], rule.sample if rule else None
    sample = None if bound is None else sample_result(order, opinions.of, bound)
    if sample is not None and not sample.suffices and not about["unreviewed"]:
        raise UserError(_why_not(place, records, opinions, rule, sample))
    outcomes: Counter[str] = Counter()
    found = approvals(order, opinions, bound)
    if not found and not about["unreviewed"]:
        raise UserError(_why_not(place, records, opinions, rule, sample))
    with written_aside(final, "publish") as aside:
        passed = records_to_train(place.records, opinions, found, outcomes, about["unreviewed"])
        write_lines(aside / RECORDS, map(json_line, passed))
        if hash_file(place.records) != about["sha256"]["records"]:
            raise UserError(f"{place.records} changes while it is read. Give the command again once it is complete.")
        num_read, num_passed = outcomes.total(), outcomes.pop("passed", 0)
        if not num_passed:
            raise UserError(f"all records of {place.records} are rejected: nothing is left to train on.")
        counts = {"num_read": num_read, "num_passed": num_passed, "left_out": dict(outcomes)}
        facts = {"kind": "approved_records", **about, **counts, "sample": asdict(sample) if sample else None}
        publish_folder(aside, final, facts)


def _why_not(
    place: Place, records: RecordSet, opinions: Opinions, rule: SampleRule | None, sample: SampleResult | None
) -> str:
    """Counts, what is missing, and the command with which people go on."""
    states = Counter(opinions.of(entry.id).state for entry in records.entries)
    num = len(records)
    left = {"open": states["open"], "flagged": states["flagged"], "rejected": states["rejected"]}
    left["unreadable"] = records.num_unreadable
    counts = ", ".join(f"{num:,} {state}" for state, num in left.items() if num)
    num_left = num - states["accepted"] - states["edited"]
    folder = place.records.parent if place.records.name == RECORDS else place.records
    command = f"sft review {shlex.quote(str(folder))}"
    if rule is not None:
        command += f" --sample {rule.sample:g}" + (f" --seed {rule.seed}" if rule.seed else "")
    why = f" Of the sample, {sample}" if sample is not None else ""
    return (
        f"{num_left:,} of {counted(num, 'record')} of {folder} are not approved ({counts}).{why}\n"
        f"  People approve them: {command}\n"
        "  To train on what nobody has approved: --unreviewed, which the report and the model's card say."
    )
