"""What the preflight found: sentences, each with the nodes that it is about."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

_MOST_NAMES = 6


class About(StrEnum):
    """What a finding is about, in the order of display."""

    NODES = "nodes"
    VERSIONS = "versions"
    FILES = "files"
    DISK = "disk space"
    CPUS = "CPUs"
    GPUS = "GPUs"
    NETWORK = "network"
    CLOCKS = "clocks"
    LIMITS = "limits"
    ENVIRONMENT = "environment"


class Finding(NamedTuple):
    """An error keeps the job from starting, a warning does not. `nodes`: those that it is about."""

    about: About
    text: str
    nodes: tuple[str, ...] = ()
    is_error: bool = True


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings, then by subject."""
    order = list(About)
    return tuple(sorted(findings, key=lambda f: (not f.is_error, order.index(f.about))))


def join_names(nodes: Sequence[str]) -> str:
    """`a, b and 3 more`."""
    more = len(nodes) - _MOST_NAMES
    return f"{', '.join(nodes[:_MOST_NAMES])}{f' and {more} more' if more > 0 else ''}"


def same_on_many(about: About, texts: Mapping[str, str | None], is_error: bool = True) -> list[Finding]:
    """One finding for all nodes with the same text; `texts`: node → text, or None."""
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    for node, text in texts.items():
        if text is not None:
            nodes[text].append(node)
    return [Finding(about, f"{join_names(named)}: {text}", tuple(named), is_error) for text, named in nodes.items()]


def not_equal(about: About, what: str, values: Mapping[str, str], remedy: str, is_error: bool = True) -> list[Finding]:
    """A finding if not all nodes have the same value; it is about those that differ from most."""
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    for node, value in values.items():
        nodes[value].append(node)
    if len(nodes) < 2:
        return []
    groups = sorted(nodes.items(), key=lambda group: -len(group[1]))
    listed = "; ".join(f"{value} on {join_names(named)}" for value, named in groups)
    different = tuple(node for _, named in groups[1:] for node in named)
    return [Finding(about, f"{what} differs: {listed}. {remedy}", different, is_error)]
