"""Makes records with a progress bar, and shows the result: counts by recipe and task, reasons, and what it cost."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from launcher.console import end_at_once
from launcher.exit_codes import DONE
from launcher.preparation import preparation_shown
from sft.absolute_paths import local_path
from sft.config import SftConfig
from sft.config_construction import ConstructConfig
from sft.construction.construction import (
    Constructed,
    Progress,
    check_sources,
    construct_all,
    plan_work,
    surroundings_of,
)
from sft.construction.counts import Counts
from sft.construction.folder import ConstructionFolder
from sft.construction.rounds import Work
from sft.construction.spending import Spending, Tokens
from sft.data.block_preparer import prepare_in_threads
from sft.data.preparation import build_store
from sft.data.store_recipe import StoreRecipe
from sft.endpoint.client import check_client
from sft.endpoint.endpoint import Endpoint, Patience
from sft.printable import counted, short_name, shortened
from sft.run_lock import run_lock

_PLAIN_EVERY_SECONDS = 15.0
_MOST_REASONS = 8
_REASON_CHARS = 200


def construct(config: SftConfig, given: ConstructConfig, console: Console, patience: Patience | None = None) -> int:
    """Make what the folder lacks, write it, and show it; returns the exit code.

    Raises:
        UserError: something of the config is not there, another process works in the folder, or the teacher cannot be
            asked. What was answered is kept.
    """
    own_prompts = None if given.prompts is None else local_path(str(given.prompts))
    section = given.model_copy(update={"out": local_path(str(given.out)), "prompts": own_prompts})
    folder = ConstructionFolder(section.out)
    check_client()
    Endpoint(section.teacher.endpoint, section.teacher.model, section.teacher.api_key_env).key()
    folder.check()
    check_sources(config, section)
    with run_lock(folder.lock, end_at_once, console.print, field="construct.out"):
        recipe = StoreRecipe.of(config.data, config.model)
        with preparation_shown(console) as report:
            store = build_store(recipe, report, prepare_in_threads)
        work = plan_work(config, section, store, recipe.preparer)
        _show_estimate(work, section, console)
        around = surroundings_of(config, store, recipe.preparer, work, folder.path)
        with _progress_shown(work.num, console) as tell:
            done = construct_all(work, section, tell, patience, around)
    _show(done, folder.path, console)
    if done.error is not None:
        raise done.error
    return DONE


def _show_estimate(work: Work, section: ConstructConfig, console: Console) -> None:
    num, tokens = work.estimate()
    cost = Spending(section.budget).cost_of(tokens)
    text = f"{counted(work.num, 'record')} wanted, in all {_spent(num, tokens, cost, 'at most about ')}"
    console.print(text, highlight=False)
    for title, num_hidden in work.num_hidden.items():
        text = f"{short_name(title)}: {counted(num_hidden, 'passage')} not shown: held-out examples have the same words"
        console.print(text, highlight=False, markup=False)


@contextmanager
def _progress_shown(total: int, console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere a line every 15 seconds."""
    columns = (
        TextColumn("constructing", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar, printed = bars.add_task("", total=total, state=""), time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal printed
            spending = progress.spending
            state = _spent(spending.num_requests, spending.tokens, spending.cost)
            bars.update(bar, completed=progress.num_done, state=state)
            if not console.is_terminal and time.monotonic() - printed > _PLAIN_EVERY_SECONDS:
                console.print(f"constructing: {progress.num_done:,} of {total:,}, {state}", highlight=False)
                printed = time.monotonic()

        yield tell


def _show(done: Constructed, path: Path, console: Console) -> None:
    table = Table("recipe", "task", title="records", title_justify="left", title_style="bold")
    for name in ("wanted", "kept", "dropped", "not made"):
        table.add_column(name, justify="right")
    for (recipe, task), counts in done.by_part.items():
        table.add_row(short_name(recipe), short_name(task), *_numbers(counts))
    if len(done.by_part) > 1:
        table.add_section()
        table.add_row("all", "", *_numbers(done.counts))
    console.print(table)
    for what, reasons in (("dropped", done.counts.dropped), ("not made", done.counts.not_made)):
        for reason, num in reasons.most_common(_MOST_REASONS):
            text = f"  {what}: {num:,} × {shortened(reason, _REASON_CHARS)}"
            console.print(text, highlight=False, markup=False)
        if len(reasons) > _MOST_REASONS:
            console.print(f"  … and {len(reasons) - _MOST_REASONS} more reasons", highlight=False)
    spending = done.spending
    console.print(f"spent: {_spent(spending.num_requests, spending.tokens, spending.cost)}", highlight=False)
    if spending.reached:
        text = f"construct.{spending.reached} is reached; with a larger one, the same command goes on"
        console.print(text, highlight=False)
    text = f"in {path}\npeople approve what is trained: sft review {shlex.quote(str(path))}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _numbers(counts: Counts) -> list[str]:
    numbers = counts.wanted, counts.kept, counts.dropped.total(), counts.not_made.total()
    return [f"{number:,}" for number in numbers]


def _spent(num: int, tokens: Tokens, cost: float | None, about: str = "") -> str:
    text = f"{about}{counted(num, 'request')}, {tokens.total:,} tokens"
    return text if cost is None else f"{text}, cost {cost:,.2f}"
