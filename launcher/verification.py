"""The verb `verify`: hashes a run's files again, checks its ledgers against its plans, and shows what it found."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from launcher.console import styled
from sft.printable import counted
from sft.run_folder import RunFolder
from sft.stage_end import end_in_words
from sft.verification.artifacts import ReportProgress
from sft.verification.findings import MAX_SHOWN, KindFindings
from sft.verification.run_check import RunVerified, verify_run
from sft.verification.stage_check import StageVerified

_PLAIN_EVERY_SECONDS = 15.0


def verify(run: RunFolder, console: Console) -> bool:
    """Verify a run folder and show the result; returns whether nothing is wrong.

    Raises:
        UserError: this is not the folder of a run.
    """
    with _progress_shown(console) as report:
        verified = verify_run(run, report)
    if verified.stages:
        console.print(_stages_table(verified))
    if verified.began_with is not None:
        console.print(f"began with {verified.began_with}", highlight=False, markup=False, soft_wrap=True)
    for stage in verified.stages:
        if len(stage.part_steps) > 1:
            parts = " and then ".join(f"{num_steps:,}" for num_steps in stage.part_steps)
            text = f"stage {stage.name} was extended: {parts} steps"
            console.print(text, highlight=False, markup=False)
        if stage.end is not None and stage.end.best is not None:
            console.print(end_in_words(stage.end), highlight=False, markup=False, soft_wrap=True)
        _show_skipped(stage, console)
    for path in verified.quarantined:
        console.print(f"a damaged checkpoint was quarantined: {path}", highlight=False, markup=False, soft_wrap=True)
    for findings in verified.findings:
        _show_findings(findings, console)
    console.print(_summary(verified), highlight=False, markup=False)
    return not verified.findings


class _Shown:
    """A bar for each task on a terminal; elsewhere a line every 15 seconds."""

    def __init__(self, console: Console, bars: Bars) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._printed = time.monotonic()

    def __call__(self, what: str, num_done: int, num_total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=num_total)
        self._bars.update(self._tasks[what], completed=num_done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._printed > _PLAIN_EVERY_SECONDS:
            self._console.print(f"{what}: {num_done / max(num_total, 1):.0%}", highlight=False)
            self._printed = now


@contextmanager
def _progress_shown(console: Console) -> Iterator[ReportProgress]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Shown(console, bars)


def _stages_table(verified: RunVerified) -> Table:
    table = Table("stage", title="trained, by the ledgers", title_justify="left", title_style="bold")
    for name in ("steps", "packs", "supervised tokens", "skipped", "rolled back", "restarts", "newest checkpoint"):
        table.add_column(name, justify="right")
    for stage in verified.stages:
        steps = f"{stage.num_steps:,}" if stage.is_finished else f"{stage.num_steps:,} of {stage.num_steps_planned:,}"
        table.add_row(
            stage.name,
            steps if stage.is_finished else f"{steps} so far",
            *(f"{number:,}" for number in (stage.num_packs, stage.num_supervised_tokens, len(stage.skipped_steps))),
            *(f"{number:,}" for number in (stage.num_rolled_back, len(verified.restarts[stage.name]))),
            f"after {stage.newest_checkpoint:,} steps" if stage.newest_checkpoint else "none",
        )
    return table


def _show_skipped(stage: StageVerified, console: Console) -> None:
    if not stage.skipped_steps:
        return
    shown = ", ".join(map(str, stage.skipped_steps[:MAX_SHOWN]))
    more = len(stage.skipped_steps) - MAX_SHOWN
    text = f"stage {stage.name}: fed, but skipped because not finite: steps {shown}{_and_more(more)}"
    console.print(text, highlight=False, markup=False)


def _show_findings(findings: KindFindings, console: Console) -> None:
    console.print(styled("[red]{}[/]: {} wrong", findings.kind.value, f"{findings.num:,}"))
    for text in findings.first:
        console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
    if findings.num > len(findings.first):
        console.print(f"  … and {findings.num - len(findings.first):,} more", highlight=False)


def _summary(verified: RunVerified) -> str:
    stages, files = verified.stages, verified.files
    if verified.findings:
        claim = f"Not verified: {counted(sum(findings.num for findings in verified.findings), 'finding')}."
    elif not stages:
        claim = "Nothing was trained yet."
    else:
        early = " of the steps before their early ends" if any(s.end and s.end.is_early for s in stages) else ""
        every = "Every" if verified.is_finished else "So far, every"
        claim = f"{every} pack{early} was fed exactly once, in its own step."
    parts = (
        counted(len(stages), "stage"),
        counted(sum(stage.num_steps for stage in stages), "step"),
        counted(sum(stage.num_packs for stage in stages), "pack"),
        counted(sum(stage.num_supervised_tokens for stage in stages), "supervised token"),
    )
    return (
        f"{claim} {', '.join(parts)}; {counted(files.num_files, 'file')} ({decimal(files.num_bytes)}) hashed again; "
        f"{counted(sum(stage.num_rolled_back for stage in stages), 'step')} rolled back in "
        f"{counted(verified.num_restarts, 'restart')}."
    )


def _and_more(num: int) -> str:
    return f" … and {num:,} more" if num > 0 else ""
