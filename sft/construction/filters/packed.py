"""Ends of scripts as bytes, for the files and the processes of one command: shorter to make and to read than JSON.

Only fields are packed, not the objects that hold them: to pickle these takes three times as long.
"""

import pickle
from collections.abc import Iterator
from typing import IO, Any

from sft.construction.script import Dropped, Failed, ScriptName
from sft.construction.work import Ended
from sft.draft import Draft, Provenance

_PROVENANCE = tuple(Provenance.__dataclass_fields__)


def packed(ended: Ended) -> bytes:
    """What `unpacked` reads."""
    name, outcome = tuple(ended.name), ended.outcome
    if isinstance(outcome, Failed):
        return pickle.dumps((name, (outcome.reason, outcome.is_final)), pickle.HIGHEST_PROTOCOL)
    draft = outcome.draft if isinstance(outcome, Dropped) else outcome
    why = (outcome.filter, outcome.reason) if isinstance(outcome, Dropped) else ()
    of = [getattr(draft.provenance, field) for field in _PROVENANCE]
    given = (draft.messages, draft.task, draft.tools, draft.evidence)
    return pickle.dumps((name, (), of, given, why), pickle.HIGHEST_PROTOCOL)


def unpacked(data: bytes) -> Ended:
    """What was packed."""
    return _ended(pickle.loads(data))


def read_packed(file: IO[bytes], num: int) -> Iterator[Ended]:
    """So many, one behind the other."""
    for _ in range(num):
        yield _ended(pickle.load(file))


def _ended(fields: Any) -> Ended:
    name, failed, *rest = fields
    if failed:
        return Ended(ScriptName(*name), Failed(*failed))
    of, (messages, task, tools, evidence), why = rest
    draft = Draft(messages, task, Provenance(*of), tools, evidence)
    return Ended(ScriptName(*name), Dropped(draft, *why) if why else draft)
