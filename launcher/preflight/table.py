"""Shows what the preflight saw and found: a row for each node, then the findings."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from launcher.console import styled
from launcher.preflight.checks import NodeReport, Preflight
from launcher.preflight.comparison import ClockOffset
from launcher.preflight.findings import Finding
from launcher.preflight.gpu_comparison import kind_of
from launcher.preflight.node_facts import NodeFacts
from sft.printable import counted


def show(preflight: Preflight, console: Console) -> None:
    """Print nodes, findings and summary."""
    console.print(_nodes_table(preflight))
    show_findings(preflight.findings, console)
    console.print(summary(preflight), highlight=False, markup=False, soft_wrap=True)


def show_findings(findings: Iterable[Finding], console: Console) -> None:
    """Print a line for each."""
    for finding in findings:
        color = "red" if finding.is_error else "yellow"
        text = styled(f"[{color}]{{}}[/]  {{}}: {{}}", _kind(finding), finding.about.value, finding.text)
        console.print(text, soft_wrap=True)


def summary(preflight: Preflight) -> str:
    """How many nodes there are, how fast they are together, and how many findings there are."""
    num_nodes = sum(report.room > 0 for report in preflight.nodes)
    parts = [f"Preflight of {counted(num_nodes, 'node')} in {preflight.seconds:.1f} s"]
    if (measured := preflight.all_reduce) is not None:
        payload = f"{measured.num_bytes / 2**20:.0f} MiB"
        parts.append(f"all-reduce of {payload} at {measured.gigabytes_per_second:.2g} GB/s (payload / time, gloo, TCP)")
    found = [counted(len(preflight.errors), "error"), counted(len(preflight.warnings), "warning")]
    return f"{', '.join(parts)}: {' and '.join(found) if preflight.findings else 'nothing is wrong'}."


def errors_as_text(preflight: Preflight) -> str:
    """The text of the message that refuses a job."""
    lines = "\n".join(f"  {finding.about.value}: {finding.text}" for finding in preflight.errors)
    return f"{summary(preflight)}\n{lines}\nCorrect these, or start without this check: cluster.preflight=false"


def as_json(preflight: Preflight) -> dict[str, Any]:
    """The whole preflight, for programs."""
    measured = preflight.all_reduce
    return {
        "seconds": round(preflight.seconds, 3),
        "nodes": [_node_as_json(report) for report in preflight.nodes],
        "all_reduce": measured and {**measured._asdict(), "gigabytes_per_second": measured.gigabytes_per_second},
        "findings": [
            {"kind": _kind(finding), "about": finding.about.value, "text": finding.text, "nodes": list(finding.nodes)}
            for finding in preflight.findings
        ],
    }


def _nodes_table(preflight: Preflight) -> Table:
    columns = ("node", "address", "workers", "GPUs", "program", "clock", "temp free", "open files", "found")
    table = Table(*columns, title="nodes", title_justify="left", title_style="bold")
    for report in preflight.nodes:
        facts = report.facts
        seen = ("?", "?", "?") if facts is None else (_gpus(facts), decimal(facts.temp_free_bytes), _open_files(facts))
        table.add_row(
            report.name,
            report.address,
            str(report.room) if report.room else "",
            seen[0],
            (report.source or "?")[:8],
            _clock(report.clock),
            *seen[1:],
            _found(report.name, preflight),
        )
    return table


def _gpus(facts: NodeFacts) -> str:
    if facts.gpus is None:
        return ""
    kinds = Counter(kind_of(gpu) for gpu in facts.gpus.gpus)
    return ", ".join(f"{num} × {kind}" for kind, num in kinds.items()) or "none"


def _open_files(facts: NodeFacts) -> str:
    return "any" if facts.num_open_files is None else f"{facts.num_open_files:,}"


def _clock(offset: ClockOffset | None) -> str:
    return "" if offset is None else f"{offset.seconds:+.3f} s"


def _found(node: str, preflight: Preflight) -> Text:
    about = [finding for finding in preflight.findings if node in finding.nodes]
    kinds = Counter(map(_kind, about))
    color = "red" if kinds["error"] else "yellow"
    found = ", ".join(counted(num, kind) for kind, num in kinds.items())
    return Text(found, style=color) if about else Text("ok")


def _kind(finding: Finding) -> str:
    return "error" if finding.is_error else "warning"


def _node_as_json(report: NodeReport) -> dict[str, Any]:
    facts = report.facts
    return {
        "name": report.name,
        "address": report.address,
        "room": report.room,
        "source": report.source,
        "clock": report.clock and report.clock._asdict(),
        "facts": None if facts is None else _facts_as_json(facts),
    }


def _facts_as_json(facts: NodeFacts) -> dict[str, Any]:
    gpus = facts.gpus
    return {
        **facts._asdict(),
        "contents": {path: contents._asdict() for path, contents in facts.contents.items()},
        "gpus": gpus and {**gpus._asdict(), "gpus": [gpu._asdict() for gpu in gpus.gpus]},
    }
