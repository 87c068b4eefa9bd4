"""Turns the facts of the driver's machine and of the nodes into findings. It gathers no facts itself.

Each argument `…: Mapping[str, …]` has the names of nodes as keys.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.filesize import decimal

from launcher.preflight.findings import About, Finding, not_equal, same_on_many
from launcher.preflight.network import Peer
from launcher.preflight.node_facts import Contents, NodeFacts
from launcher.preflight.shared_folders import SharedFolder
from sft.url_secrets import without_secrets

DRIVER = "driver"
"""The name of the driver's machine among the nodes."""

_TEMP_BYTES = 10**9
_SHM_BYTES = 10**9
"""What NVIDIA recommends for NCCL in a container (its default is 64 MB)."""
_NUM_OPEN_FILES = 4096
"""Ray warns below this."""

_SKEW_SECONDS = 2.0
_MOST_SKEW_SECONDS = 300.0
"""From about here on, object storage and other services refuse requests signed with the wrong time."""


class ClockOffset(NamedTuple):
    """A node's clock minus the driver's, known to within `bound`; both in seconds."""

    seconds: float
    bound: float


def compare_sources(sources: Mapping[str, str]) -> list[Finding]:
    """Whether all run the same program, by the hash of its source."""
    return not_equal(About.VERSIONS, "the source of this program", sources, "Install the same one everywhere.")


def compare_versions(versions: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Whether all have the same packages, and import them."""
    packages = dict.fromkeys(package for installed in versions.values() for package in installed)
    return [
        finding
        for package in packages
        for finding in not_equal(
            About.VERSIONS,
            package,
            {node: installed.get(package, "not looked at") for node, installed in versions.items()},
            "Install the same version everywhere.",
        )
    ]


def compare_contents(contents: Mapping[str, Contents], field: str, path: str) -> list[Finding]:
    """Whether each node reads at the path what the first node reads there."""
    expected = next(iter(contents.values()))
    told = {node: _difference(found, expected) for node, found in contents.items()}
    return same_on_many(About.FILES, {n: f"{field} ({path}) {text}" if text else None for n, text in told.items()})


def compare_environments(environments: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Whether the variables that matter are the same on all nodes."""
    names = sorted({name for variables in environments.values() for name in variables})
    return [
        finding
        for name in names
        for finding in not_equal(
            About.ENVIRONMENT,
            name,
            {node: variables.get(name, "not set") for node, variables in environments.items()},
            "Set it alike on all nodes, before `ray start`.",
            is_error=False,
        )
    ]


def check_limits(nodes: Mapping[str, NodeFacts]) -> list[Finding]:
    """What a node has too little of, without regard to the others."""
    told = {node: tuple(_limits(facts)) for node, facts in nodes.items()}
    texts = dict.fromkeys(text for of_node in told.values() for text in of_node)
    return [
        finding
        for text in texts
        for finding in same_on_many(
            About.LIMITS, {node: text if text in of_node else None for node, of_node in told.items()}, is_error=False
        )
    ]


def check_processors(nodes: Mapping[str, NodeFacts]) -> list[Finding]:
    """Nodes that compute what the job wants without instructions for it."""
    told = {node: facts.slow_arithmetic for node, facts in nodes.items()}
    return same_on_many(About.CPUS, told, is_error=False)


def check_folder(folder: SharedFolder, problems: Mapping[str, str | None]) -> list[Finding]:
    """Whether the driver and all nodes see the same folder; `problems`: None for a node that does."""
    named = f"{folder.field} ({without_secrets(folder.location)})"
    told = {node: f"{named} {problem}" if problem else None for node, problem in problems.items()}
    return same_on_many(About.FILES, told)


def check_clocks(offsets: Mapping[str, ClockOffset]) -> list[Finding]:
    """Clocks that are off even if the messages took as long as measured."""
    findings = []
    for node, (seconds, bound) in offsets.items():
        off = abs(seconds) - bound
        if off > _SKEW_SECONDS:
            text = (
                f"{node}: its clock is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} the driver's "
                f"(to within {bound:.2g} s): times in logs and of files cannot be compared. Synchronize it (NTP)."
            )
            findings.append(Finding(About.CLOCKS, text, (node,), is_error=off > _MOST_SKEW_SECONDS))
    return findings


def check_connections(peers: Mapping[str, Peer], unreachable: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Pairs that cannot connect; `unreachable`: from → to → why."""
    findings = []
    for target, peer in peers.items():
        told: dict[str, list[str]] = {}
        for node, reasons in unreachable.items():
            if target in reasons:
                told.setdefault(reasons[target], []).append(node)
        for reason, sources in told.items():
            everyone = len(sources) == len(peers) - 1 and len(peers) > 2
            who = "all other nodes" if everyone else ", ".join(sources)
            text = (
                f"{target} cannot be reached at {peer.address}, port {peer.port}, from {who}: {reason}. "
                "Open all TCP ports between the nodes."
            )
            findings.append(Finding(About.NETWORK, text, (target, *(() if everyone else sources))))
    return findings


def check_host_addresses(nodes: Mapping[str, NodeFacts], addresses: Mapping[str, str]) -> list[Finding]:
    """For training on CPUs: gloo tells the other ranks the address that the host name resolves to."""
    if len(set(addresses.values())) < 2:
        return []
    told = {
        node: f"its host name resolves to {facts.host_address}, which other nodes cannot reach: gloo cannot "
        "connect. Set GLOO_SOCKET_IFNAME to the network interface before `ray start`, or correct /etc/hosts."
        if "GLOO_SOCKET_IFNAME" not in facts.environment and not _leads_here(facts.host_address)
        else None
        for node, facts in nodes.items()
    }
    return same_on_many(About.NETWORK, told)


def _difference(found: Contents, expected: Contents) -> str | None:
    if found.problem is not None:
        return found.problem
    missing = [name for name in expected.files if name not in found.files]
    if missing:
        return f"lacks {_first(missing)}"
    other = [name for name, identity in expected.files.items() if found.files[name] != identity]
    return f"differs from what the driver reads there: {_first(other)}" if other else None


def _first(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more files" if len(names) > 1 else names[0]


def _limits(facts: NodeFacts) -> Iterator[str]:
    if facts.temp_free_bytes < _TEMP_BYTES:
        left = decimal(facts.temp_free_bytes)
        yield f"the temporary folder ({facts.temp_folder}) has {left} left; make room, or set TMPDIR before `ray start`"
    if facts.staging_problem is not None:
        yield f"no packs can be staged: {facts.staging_problem}; ranks will read them from data.cache_dir"
    if facts.num_open_files is not None and facts.num_open_files < _NUM_OPEN_FILES:
        yield f"a process may have {facts.num_open_files} files open; raise it (`ulimit -n 65536`) before `ray start`"
    if facts.gpus is not None and facts.shm_bytes < _SHM_BYTES:
        yield f"/dev/shm has {decimal(facts.shm_bytes)}: NCCL may fail there; in a container, use --shm-size=1g or more"


def _leads_here(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
