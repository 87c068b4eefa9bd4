"""The verb `score`: measures the losses of a job's examples on its workers, and shows them by task."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from launcher.cluster.loss_replicas import measured_losses
from launcher.cluster.replicas import workers_connected
from launcher.console import styled
from launcher.exit_codes import DONE, FAILED
from launcher.layout_check import laid_out
from launcher.preparation import open_store
from sft.atomic_files import write_json, write_lines
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.difficulty.loss_lines import loss_lines
from sft.difficulty.loss_table import LossTable, ModelLosses
from sft.difficulty.summary import Difficulty, difficulty_of, write_difficulty
from sft.errors import TrainingError, UserError
from sft.job_config import JobConfig
from sft.printable import short_name
from sft.run_claim import measured_to, measuring_in
from sft.run_folder import RunFolder
from sft.schema import Example, IntArray
from sft.training.whole_evaluation import BASE, WholeModelPath, models_of

_GROUP = 64
"""Examples that a worker gets at once. What is measured of them is kept when all are."""


def score(job: JobConfig, wanted: Sequence[str], num: int | None, out: Path | None, console: Console) -> int:
    """Measure what is not measured yet, and show it; returns the exit code.

    Args:
        job: whose examples, and on which workers.
        wanted: the models (see `models_of`); by default the one that training starts from.
        num: until so many examples are measured; None for all.
        out: gets a line for each measured example.
        console: where tables go.

    Raises:
        UserError: data, a model or a setting cannot be used, or a file cannot be written.
    """
    config = job.sft
    models = models_of(config, wanted or [BASE])
    recipe = StoreRecipe.of(config.data, config.model)
    folder = RunFolder(config.run.dir).losses(recipe.path.name)
    measured = []
    with measuring_in(folder), ExitStack() as opened:
        store = open_store(recipe, console)
        # Only once something is to be measured.
        connect = cache(lambda: opened.enter_context(workers_connected(job.cluster, console)))
        for model in models:
            table = LossTable(folder / f"{model.file_name}.npy", len(store), may_write=True)
            with measured_to(folder):
                write_json(table.about, {"title": model.title, "path": model.path})
            try:
                _measure(job, model, store, table, num, connect, console)
            except TrainingError as error:
                console.print(styled("[red]The measurement cannot go on:[/] {}", str(error)))
                return FAILED
            measured.append(ModelLosses(model.title, table))
    difficulty = difficulty_of(store, measured)
    with measured_to(folder):
        write_difficulty(difficulty, folder)
    _show(difficulty, console)
    console.print(f"losses of each example   {folder}", highlight=False, soft_wrap=True)
    if out is not None:
        try:
            write_lines(out, loss_lines(store, measured))
        except OSError as error:
            raise UserError(f"--out {out}: it cannot be written: {error.strerror}.") from None
        console.print(f"a line for each          {out}", highlight=False, soft_wrap=True)
    return DONE


def _measure(
    job: JobConfig,
    model: WholeModelPath,
    store: TokenStore,
    table: LossTable,
    num: int | None,
    connect: Callable[[], bool],
    console: Console,
) -> None:
    missing = table.missing(job.sft.run.seed, num)
    if not len(missing):
        return
    own = laid_out(job.sft, model.path)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        console.print(f"measuring {len(missing):,} examples: {model.title}", highlight=False, markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(model.title, total=len(missing))
        for rows, losses in measured_losses(job.cluster, connect, own, _groups(store, missing)):
            table.put(rows, losses)
            bars.advance(bar, len(rows))


def _groups(store: TokenStore, rows: IntArray) -> Iterator[tuple[IntArray, list[Example]]]:
    for start in range(0, len(rows), _GROUP):
        group = rows[start : start + _GROUP]
        yield group, [store.example(int(row)) for row in group]


def _show(difficulty: Difficulty, console: Console) -> None:
    first, *others = difficulty.models
    title = f"Difficulty for {first}: medians over examples"
    table = Table("task", title=title, title_justify="left", title_style="bold")
    for name in ("examples", "loss", "IFD", "10 % to 90 %", "prompt does not help"):
        table.add_column(name, justify="right")
    for other in others:
        table.add_column(f"lower for {other} by", justify="right")
    for row in difficulty.tasks:
        low, middle, high = row.ifd
        unhelped = f"{row.num_unhelped:,} ({row.num_unhelped / row.num_measured:.0%})"
        numbers = [f"{row.num_measured:,}", f"{row.loss:.3f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}", unhelped]
        table.add_row(short_name(row.task), *numbers, *(f"{gain:+.3f}" for gain in row.gains))
    console.print(table)
