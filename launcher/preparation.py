"""Prepares a job's data with a progress bar, and shows the result: counts, then each stage's mixture."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from launcher.cluster.block_executor import prepare_on_cluster
from launcher.console import styled
from sft.atomic_files import read_json, read_manifest
from sft.config import SftConfig, SourceConfig
from sft.data.block_preparer import Executor
from sft.data.formats.formatting import describe_source
from sft.data.made_records import made_of_run
from sft.data.planning.mixture import MixtureRow
from sft.data.planning.pack_plan import PackPlan
from sft.data.preparation import REJECTED, Progress, Report, build_store
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.evaluation.balance_plot import draw_balance
from sft.evaluation.made_data import made_of_models, made_rows
from sft.evaluation.tables import mixture_table
from sft.printable import counted, short_name, shortened
from sft.run_folder import RunFolder
from sft.training.prepared import Workload
from sft.training.workload import prepare_workload

_PLAIN_EVERY_SECONDS = 15.0
_MOST_LINES = 8
_MAX_REASON_CHARS = 2000


class _Shown:
    """A bar for each source on a terminal; elsewhere a line every 15 seconds."""

    def __init__(self, console: Console, bars: Bars) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._started = self._printed = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        state = f"{progress.num_records:,} records"
        if progress.source not in self._tasks:
            self._started = now
            self._tasks[progress.source] = self._bars.add_task(short_name(progress.source), total=1.0, state="")
        elif now > self._started:
            state += f"  {progress.num_records / (now - self._started):,.0f}/s"
        self._bars.update(self._tasks[progress.source], completed=progress.done, state=state)
        if not self._console.is_terminal and now - self._printed > _PLAIN_EVERY_SECONDS:
            self._console.print(f"preparing {progress.source}: {progress.done:.0%}, {state}", highlight=False)
            self._printed = now


@contextmanager
def preparation_shown(console: Console) -> Iterator[Report]:
    """While open, shows what is reported: a bar for each source, or lines if there is no terminal."""
    columns = (
        TextColumn("preparing {task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Shown(console, bars)


def open_store(recipe: StoreRecipe, console: Console, executor: Executor = prepare_on_cluster) -> TokenStore:
    """The store of the recipe, made if it is not there yet; says what of it was made, and aloud what nobody approved.

    Raises:
        UserError: the data cannot be used.
    """
    with preparation_shown(console) as report:
        store = build_store(recipe, report, executor)
    show_made_data(made_of_run(store.manifest, recipe.passed), console)
    return store


def prepare(config: SftConfig, console: Console) -> tuple[Workload, TokenStore, list[PackPlan]]:
    """Make the token store and the stages' plans if they are not there yet, and show them.

    Raises:
        UserError: the data or the mixture cannot be used.
    """
    with preparation_shown(console) as report:
        prepared = prepare_workload(config, report, prepare_on_cluster)
    workload, store, plans = prepared
    run = RunFolder(config.run.dir)
    _show_sources(config, store, console)
    show_made_data(made_of_models(read_json(run.manifest)), console)
    _show_held_out(workload, store, console)
    _show_overlap(run, console)
    for i, (stage, plan) in enumerate(zip(config.stages, plans, strict=True)):
        rows = [MixtureRow(**row) for row in plan.manifest["mixture"]]
        console.print(mixture_table(stage.name, rows))
        picture = run.stage(i, stage.name).balance_plot
        if not picture.is_file():
            draw_balance(picture, stage.name, plan.manifest["unit"], rows)
        if plan.manifest["ends_early"]:
            console.print(
                styled("[yellow]stage {} ends early:[/]", stage.name),
                f"max_epochs_per_task leaves {plan.manifest['num_units']:,} of the "
                f"{plan.manifest['num_units_wanted']:,} {plan.manifest['unit'].replace('_', ' ')} of its budget",
            )
        console.print(
            f"stage {stage.name}: {plan.manifest['num_packs']:,} packs in {plan.manifest['num_steps']:,} steps of "
            f"{config.train.packs_per_step}, "
            f"{plan.manifest['num_tokens']:,} tokens, {plan.manifest['num_supervised_tokens']:,} of them supervised, "
            f"{plan.manifest['fill']:.1%} of slots filled\n",
            highlight=False,
        )
    return prepared


def _show_sources(config: SftConfig, store: TokenStore, console: Console) -> None:
    for given, found in zip(config.data.sources, store.manifest["inputs"]["sources"], strict=True):
        if given.format == "auto":
            source = SourceConfig(name=given.name, path=given.path, format=found["format"], columns=found["columns"])
            console.print(f"source {given.name}: {describe_source(source)}, found by its columns", highlight=False)
    for note in store.manifest["notes"]:
        console.print(f"note: {note}", highlight=False)
    counts = store.manifest
    console.print(_counts_table(counts))
    too_long = sorted(counts["too_long_by_task"].items(), key=lambda item: -item[1])
    for lines in (
        [f"bad: {count:,} × {shortened(reason, _MAX_REASON_CHARS)}" for reason, count in counts["reasons"].items()],
        [f"too long: {count:,} of {short_name(task)}" for task, count in too_long],
    ):
        more = [f"… and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
        for line in lines[:_MOST_LINES] + more:
            console.print(f"  {line}", highlight=False, markup=False)
    if counts["num_read"] > counts["num_kept"]:
        console.print(f"  each of them: {store.path / REJECTED}", highlight=False, soft_wrap=True)
    if counts["num_markers"]:
        text = f"  end-of-text markers taken from the ends of answers: {counts['num_markers']:,}"
        console.print(text, highlight=False)
    num_tokens, num_supervised = store.tokens.shape[0], int(store.num_supervised.sum(dtype="int64"))
    text = f"data: {counts['num_examples']:,} examples, {num_tokens:,} tokens, {num_supervised:,} of them supervised"
    console.print(f"{text}\n", highlight=False)


def show_made_data(made: Mapping[str, Any], console: Console) -> None:
    """What is trained on that was made, who approved it, and aloud what nobody did."""
    for row in made_rows(made):
        console.print(str(row), highlight=False, markup=False, soft_wrap=True)
        if row.warning:
            console.print(styled("[bold red]{}[/]", row.warning), highlight=False, soft_wrap=True)


def _show_held_out(workload: Workload, store: TokenStore, console: Console) -> None:
    if workload.heldout is None:
        text = "held out: nothing, so nothing is measured (data.holdout)"
    else:
        found = read_manifest(workload.heldout)
        of_tasks = f"{found['num_tasks']:,} of {counted(len(store.tasks), 'task')}"
        text = f"held out: {counted(found['num_held_out'], 'example')}, of {of_tasks}"
    console.print(text, highlight=False)
    if workload.questions is not None:
        show_questions(workload.questions, console)


def show_questions(folder: Path, console: Console) -> None:
    """How many held-out prompts are asked, which are not, and what to know of their answers."""
    manifest = read_manifest(folder)
    console.print(f"{manifest['num_questions']:,} prompts are asked", highlight=False)
    for reason, num in manifest["fewer_shots"].items():
        console.print(f"of them {num:,} with fewer examples than evaluate.shots says: {reason}", highlight=False)
    for reason, num in manifest["left_out"].items():
        console.print(styled("[yellow]{}[/] not asked: {}", f"{num:,}", reason), highlight=False)
    for note in manifest["notes"]:
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def _show_overlap(run: RunFolder, console: Console) -> None:
    if not run.overlap.is_file():
        return
    found = read_json(run.overlap)
    run_len, touched = f"a run of {found['overlap_len_tokens']} tokens", found["num_training_touched"]
    if not touched:
        text = f"none of {found['num_training']:,} training examples shares {run_len} with a held-out one"
    else:
        text = (
            f"{touched:,} of {found['num_training']:,} training examples share {run_len} with "
            f"{found['num_held_out_touched']:,} of {found['num_held_out']:,} held-out ones, and are "
            + ("not trained on" if found["removed"] else "trained on (data.holdout.decontaminate)")
        )
    console.print(f"overlap: {text}", highlight=False)
    if touched:
        pairs = [
            f"{short_name(row['training'])} ~ {short_name(row['held_out'])} {row['num_training_touched']:,}"
            for row in found["by_task"][:5]
        ]
        console.print(f"  {', '.join(pairs)}; which ones: {run.overlap}", highlight=False, markup=False)
    console.print()


def _counts_table(counts: Mapping[str, Any]) -> Table:
    """Read = kept + each reason, by source; reasons that never occur are not shown."""
    kinds = {
        "num_read": "read",
        "num_kept": "kept",
        "num_bad": "bad",
        "num_too_long": "too long",
        "num_duplicate": "duplicate",
        "num_near_duplicate": "near duplicate",
        "num_shortened": "(shortened)",
        "num_repaired": "(repaired)",
    }
    shown = [name for name in kinds if counts[name] or name in ("num_read", "num_kept")]
    table = Table("source", title="records", title_justify="left", title_style="bold")
    for name in shown:
        table.add_column(kinds[name], justify="right")
    for row in counts["by_source"]:
        table.add_row(row["name"], *(f"{row[name]:,}" for name in shown))
    if len(counts["by_source"]) > 1:
        table.add_section()
        table.add_row("all", *(f"{counts[name]:,}" for name in shown))
    return table
