"""The table of `sft review --status`: how far reviewers are, and what that approves."""

from rich import box
from rich.table import Table

from launcher.console import FitConsole, styled
from sft.approval.decisions import is_unfinished, whole_decisions
from sft.approval.record_set import Place
from sft.errors import UserError
from sft.printable import counted, short_name
from sft.review.session import ReviewSession, Setting

_STATES = ("accepted", "edited", "rejected", "flagged", "open")


def show_status(place: Place, setting: Setting, console: FitConsole) -> None:
    """Print it.

    Raises:
        UserError: the records cannot be read.
    """
    session = ReviewSession(place, "", setting)
    progress = session.progress()
    table = Table("task", *_STATES, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in progress["tasks"]:
        table.add_row(short_name(row["task"] or "–"), *(f"{row.get(state, 0):,}" for state in _STATES))
    if len(progress["tasks"]) > 1:
        table.add_section()
        table.add_row("all", *(f"{progress['total'][state]:,}" for state in _STATES))
    console.print(table)
    if num := session.records.num_unreadable:
        console.print(f"{counted(num, 'line')} of {place.records} cannot be read, and will not be trained.")
    said = place.decisions.read_bytes() if place.decisions.is_file() else b""
    if is_unfinished(said):
        text = f"The last line of {place.decisions} is unfinished, as a killed page leaves it: it does not count."
        console.print(styled("[yellow]{}[/]", text), highlight=False, soft_wrap=True)
    try:
        whole_decisions(place.decisions, said)
    except UserError as error:
        console.print(styled("[bold red]{}[/]", str(error)), highlight=False, soft_wrap=True)
    total = progress["total"]
    console.print(f"Approved one by one: {counted(total['accepted'] + total['edited'], 'record')}.")
    if progress["sample"]:
        console.print(f"Sample: {progress['sample']}")
    for pair in progress["agreement"]:
        console.print(pair)
