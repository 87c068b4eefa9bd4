"""Finds why an attempt ended, from the last events of its ranks and of what started them: the cause before its
consequences.

A lost rank leaves no record, and the others report broken connections. Under Ray, two others know more: the controller
sees a rank's process or node die, and the driver sees Ray itself die. Also, before a group is ended, each rank that is
still there says so. A rank that stayed silent is gone. If the cause cannot be known, the message says so.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sft.attempt_record import RankProcesses, named, read_ranks
from sft.run_events import NO_RANK, Event, read_events
from sft.run_folder import AttemptFolder

GONE, RAISED, RAY, NODE = "gone", "raised", "ray", "node"
"""The values of `how` in an event `lost`: the process of `rank` is gone; `rank` raised an error; Ray itself is gone;
`node` has left the cluster."""

NOT_KNOWN = "not known: no rank left a message, as if all were killed at once or their machines were lost"


def describe_end(folder: AttemptFolder) -> str:
    """Why an attempt ended without having finished, in a sentence."""
    events, ranks, reported = read_events(folder), read_ranks(folder), folder.hang_reports().keys()
    found = (
        _lost_ray(events)
        or _gone(events, ranks, reported)
        or _first(events, "hung")
        or _first_failure(events, of="program")
        or _first_failure(events, follows=False)
        or _raised(events, ranks)
        or _lost_node(events, ranks)
        or _silent(events, ranks, reported)
        or _taken_away(events)
    )
    if found:
        return found
    failed = _first_failure(events)
    if failed:
        return f"not known which rank was first: {failed}"
    return "the ranks were ended from outside; why is not known" if _of(events, "released") else NOT_KNOWN


def is_lost(events: Sequence[Event]) -> bool:
    """Whether Ray, or a rank that had met no error, was gone: then the errors of other ranks may follow from that."""
    return bool(_of_how(events, RAY) or _gone_ranks(events, ()))


def _of(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def _of_how(events: Iterable[Event], how: str) -> list[Event]:
    return [event for event in _of(events, "lost") if event.facts.get("how") == how]


def _first(events: Sequence[Event], kind: str) -> str | None:
    return next((event.text for event in _of(events, kind)), None)


def _first_failure(events: Sequence[Event], **facts: Any) -> str | None:
    found = [e for e in _of(events, "failed") if all(e.facts.get(name) == value for name, value in facts.items())]
    return f"rank {found[0].rank}, {found[0].text}" if found else None


def _lost_ray(events: Sequence[Event]) -> str | None:
    return next((event.text for event in _of_how(events, RAY)), None)


def _gone_ranks(events: Sequence[Event], reported: Iterable[int]) -> list[Event]:
    """The event of each rank that is gone and met no error before."""
    spoke = {event.rank for event in events if event.kind in ("failed", "hung")}.union(reported)
    return [event for event in _of_how(events, GONE) if event.facts["rank"] not in spoke]


def _gone(events: Sequence[Event], ranks: RankProcesses, reported: Iterable[int]) -> str | None:
    told: dict[str, list[int]] = {}
    for event in _gone_ranks(events, reported):
        told.setdefault(event.text, []).append(event.facts["rank"])
    return "; ".join(f"{named(of_text, ranks)} was gone: {text}" for text, of_text in told.items()) or None


def _raised(events: Sequence[Event], ranks: RankProcesses) -> str | None:
    found = [event for event in _of_how(events, RAISED) if not event.facts["follows"]]
    return f"{named([found[0].facts['rank']], ranks)}: {found[0].text}" if found else None


def _lost_node(events: Sequence[Event], ranks: RankProcesses) -> str | None:
    for event in _of_how(events, NODE):
        there = [rank for rank, about in ranks.items() if about.node == event.facts["node"]]
        if there:
            return f"{named(there, ranks)} was gone: {event.text}"
    return None


def _silent(events: Sequence[Event], ranks: RankProcesses, reported: Iterable[int]) -> str | None:
    heard = {e.rank for e in events if e.kind in ("failed", "released")}.union(reported) - {NO_RANK}
    silent = sorted(ranks.keys() - heard)
    if not silent or not heard:
        return None
    if _of(events, "released"):
        return f"{named(silent, ranks)} no longer answered: stopped, or its machine was lost"
    if len(silent) == 1:
        return f"{named(silent, ranks)} was gone: killed, out of memory, or its node was lost"
    who = f"at least one of {named(silent, ranks)} was gone, but which one is not known"
    return f"{who}: killed, out of memory, or a lost node"


def _taken_away(events: Sequence[Event]) -> str | None:
    notice = _first(events, "notice")
    return f"the ranks were ended because a node is taken away ({notice})" if notice else None
