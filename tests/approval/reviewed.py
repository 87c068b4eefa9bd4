"""A folder as `sft construct` leaves it, and what reviewers say of its records."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sft.approval.decisions import DecisionFile
from sft.approval.record_set import identity
from sft.draft import Draft, Provenance
from tests.approval.test_decisions import decision

PROVENANCE = Provenance("self_instruct", "big at http://teacher", "ab12", made="2026-11-28")


def draft(i: int, task: str = "sorting") -> dict[str, Any]:
    """A line of constructed data."""
    messages = ({"role": "user", "content": f"Sort: {i} 9 8"}, {"role": "assistant", "content": f"1 2 {i}"})
    return Draft(messages, task, PROVENANCE).as_json()


def constructed(folder: Path, num: int = 4) -> Path:
    """The folder, with a record that filters dropped and a log."""
    (folder / "log").mkdir(parents=True)
    lines = [json.dumps(draft(i)) + "\n" for i in range(num)]
    (folder / "records.jsonl").write_text("".join(lines))
    (folder / "dropped.jsonl").write_text(json.dumps({**draft(99), "dropped": {"filter": "form"}}) + "\n")
    (folder / "log" / "replies.jsonl").write_text('{"name": "r"}\n')
    (folder / "manifest.json").write_text('{"kind": "construction"}')
    return folder


def say(folder: Path, numbers: Sequence[int], verdict: str, reviewer: str = "kim", name: str = "") -> None:
    """A verdict on some of the records."""
    file = DecisionFile(folder / "decisions.jsonl")
    for i in numbers:
        file.append(decision(f"{name}{reviewer}{verdict}{i}", identity(draft(i)), verdict, reviewer))


def edit(folder: Path, i: int, answer: str, reviewer: str = "kim") -> None:
    """A reviewer writes another answer."""
    made = draft(i)
    made["messages"] = [made["messages"][0], {"role": "assistant", "content": answer}]
    made["id"] = identity(made)
    one = decision(f"edit{i}{answer}", identity(draft(i)), "edit", reviewer)
    DecisionFile(folder / "decisions.jsonl").append(replace(one, edited=made))
