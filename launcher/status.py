"""Shows what a run is doing, once or repeatedly, from any machine that sees its folder."""

import time
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher.console import styled
from launcher.durations import duration
from sft.monitoring.run_status import RunStatus, RunWatcher, StageStatus
from sft.printable import counted

_WATCH_SECONDS = 2.0
_PLAIN_SECONDS = 30.0
_NUM_RESTARTS = 5
_NOTABLE_SLOWDOWN = 1.1
_COLORS = {"running": "green", "finished": "green", "failed": "red", "dead": "red"}
_EVENT_WORDS = {
    "checkpoint": "problems with checkpoints",
    "skipped": "skipped steps",
    "spike": "loss spikes",
    "hung": "hangs",
    "notice": "notices of a node's end",
}


def show(watcher: RunWatcher, console: Console) -> None:
    """Print the state once."""
    console.print(draw(watcher.read()))


def watch(watcher: RunWatcher, console: Console) -> None:
    """Show the state until the run has ended, or Ctrl-C."""
    states = _states(watcher, _WATCH_SECONDS if console.is_terminal else _PLAIN_SECONDS)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                for status in states:
                    live.update(draw(status), refresh=True)
        else:
            for status in states:
                console.print(draw(status))
    except KeyboardInterrupt:
        return


def _states(watcher: RunWatcher, every_seconds: float) -> Iterator[RunStatus]:
    while (status := watcher.read()).state in ("running", "not started"):
        yield status
        time.sleep(every_seconds)
    yield status


def draw(status: RunStatus) -> RenderableType:
    """The state for people to read."""
    color = _COLORS.get(status.state, "yellow")
    ranks = f", attempt {status.attempt} with {counted(status.num_ranks, 'rank')}" if status.num_ranks else ""
    head = styled(f"[bold]{{}}[/]  [{color}]{{}}[/]{{}}", status.name, status.state, ranks)
    detail = [Text(status.detail, style="dim")] if status.detail else []
    return Group(head, *detail, "", _stages(status), "", _facts(status))


def _stages(status: RunStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", style="bold", header_style="dim")
    table.add_column("")
    for name in ("step", "loss", "tokens/s", "sup. tokens/s", "MFU", "s/step", "left"):
        table.add_column(name, justify="right", header_style="dim", no_wrap=True)
    for stage in status.stages:
        total = stage.num_steps or 0
        bar = ProgressBar(total=max(total, 1), completed=stage.num_done, width=20)
        steps = f"{stage.num_done:,}/{total:,}" if total else "not planned"
        table.add_row(stage.name, bar, steps, *_measured(stage))
    return table


def _measured(stage: StageStatus) -> tuple[str, ...]:
    rates = (stage.loss, stage.tokens_per_second, stage.supervised_tokens_per_second, stage.mfu, stage.step_seconds)
    formats = (".4f", ",.0f", ",.0f", ".1%", ".3g")
    left = "done" if stage.is_complete else "" if stage.seconds_left is None else duration(stage.seconds_left)
    return *("" if v is None else format(v, f) for v, f in zip(rates, formats, strict=True)), left


def _facts(status: RunStatus) -> Table:
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    if status.state == "running" and status.seconds_left is not None:
        facts.add_row("left in all", duration(status.seconds_left))
    if status.last_step_age_seconds is not None:
        facts.add_row("last step", f"{duration(status.last_step_age_seconds)} ago")
    if saved := status.checkpoint:
        age = "" if saved.age_seconds is None else f", {duration(saved.age_seconds)} ago"
        facts.add_row("checkpoint", f"step {saved.step:,} of {saved.stage}{age}")
        facts.add_row("", Text(saved.where, style="dim"))
    if status.state == "running" and (status.num_ranks or 0) > 1:
        facts.add_row("slowest rank", _straggler(status))
    facts.add_row("restarts", str(len(status.restarts)))
    for restart in status.restarts[-_NUM_RESTARTS:]:
        moment = "" if restart.time != restart.time else datetime.fromtimestamp(restart.time).strftime("%d %b %H:%M:%S")
        facts.add_row("", styled("[dim]{}[/]  attempt {}: {}", moment, restart.attempt, restart.why))
    seen = [f"{n} {_EVENT_WORDS[kind]}" for kind, n in status.num_events.items() if kind in _EVENT_WORDS]
    if seen:
        facts.add_row("seen", ", ".join(seen))
    return facts


def _straggler(status: RunStatus) -> str:
    found = status.straggler
    if found is None or found.slowdown < _NOTABLE_SLOWDOWN:
        return "none stands out"
    return f"rank {found.rank} on {found.node}: {found.slowdown:.2f} × the time of the median"
