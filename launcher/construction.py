"""Makes records with a progress bar, and shows the result: counts by recipe and task, reasons, and what it cost."""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from launcher.console import end_at_once, styled
from launcher.exit_codes import DONE, FAILED
from launcher.layout_check import laid_out
from launcher.preparation import open_store
from sft.absolute_paths import local_path
from sft.config_construction import ConstructConfig
from sft.construction.card import write_card
from sft.construction.construction import (
    Constructed,
    check_sources,
    construct_all,
    plan_work,
    surroundings_of,
)
from sft.construction.counts import Counts, said_of_others
from sft.construction.draft_losses import DraftLosses, Groups, losses_name
from sft.construction.filters.difficulty import Difficulty
from sft.construction.filters.judge import Graded
from sft.construction.filters.registry import read_filters
from sft.construction.folder import ConstructionFolder
from sft.construction.grading import usual_grading
from sft.construction.local_teacher import AT_ONCE, LocalTeacher
from sft.construction.page import write_page
from sft.construction.recipes.registry import read_recipes
from sft.construction.replaying import Progress
from sft.construction.spending import Spending, Tokens
from sft.construction.teacher import Teacher
from sft.construction.teacher_choice import teachers_of
from sft.construction.work import Work
from sft.data.block_preparer import prepare_in_threads
from sft.data.record_pipeline import RecordPipeline
from sft.data.store_recipe import StoreRecipe
from sft.difficulty.loss_table import Floats
from sft.endpoint.endpoint import Endpoint, Patience
from sft.errors import TrainingError, UserError
from sft.job_config import JobConfig
from sft.printable import counted, short_name, shortened
from sft.run_lock import run_lock

_PLAIN_EVERY_SECONDS = 15.0
_MOST_REASONS = 8
_REASON_CHARS = 200
_SHOWN_DIGITS = 12
"""Of a fingerprint, in provenance."""


def construct(job: JobConfig, given: ConstructConfig, console: Console, patience: Patience | None = None) -> int:
    """Make what the folder lacks, write it, and show it; returns the exit code.

    Args:
        job: the job, with absolute paths.
        given: its section `construct`.
        console: where tables go.
        patience: of the clients of endpoints.

    Raises:
        UserError: something of the config is not there, another process works in the folder, or the teacher cannot be
            asked. What was answered is kept.
    """
    own_prompts = None if given.prompts is None else local_path(str(given.prompts))
    section = given.model_copy(update={"out": local_path(str(given.out)), "prompts": own_prompts})
    folder, config = ConstructionFolder(section.out), job.sft
    for served in section.teachers:
        if served.endpoint:
            Endpoint(served.endpoint, served.model, served.api_key_env).key()
    folder.check()
    check_sources(config, section)
    with ExitStack() as opened, run_lock(folder.lock, end_at_once, console.print, field="construct.out"):
        connect = cache(partial(_connect, job, console, opened))  # when a model is asked or measured, and once
        local = _local_teachers(job, section, connect, opened)
        recipe = StoreRecipe.of(config.data, config.model)
        store = open_store(recipe, console, prepare_in_threads)
        work = plan_work(config, section, store, recipe.preparer)
        _show_estimate(work, section, console)
        around = surroundings_of(config, store, recipe.preparer, work, folder.path)
        losses = _draft_losses(job, section, folder, recipe.preparer.pipeline, connect)
        try:
            with _progress_shown(console) as tell:
                done = construct_all(work, section, tell, patience, around, local, losses)
        except TrainingError as error:
            console.print(styled("[red]Losses cannot be measured:[/] {}", str(error)))
            return FAILED
        write_card(folder, write_page(folder, around.seeds))
    _show(done, folder.path, console)
    if done.error is not None:
        raise done.error
    return DONE


def _connect(job: JobConfig, console: Console, opened: ExitStack) -> bool:
    """Connect to the job's workers until the stack is closed; False where this process is the only one."""
    from launcher.cluster.replicas import workers_connected  # noqa: PLC0415  (Ray, which takes seconds)

    return opened.enter_context(workers_connected(job.cluster, console))


def _draft_losses(
    job: JobConfig,
    section: ConstructConfig,
    folder: ConstructionFolder,
    pipeline: RecordPipeline,
    connect: Callable[[], bool],
) -> Sequence[DraftLosses]:
    """What measures drafts by the model that is trained, and by the one after it, if a filter asks for it."""
    given = next((one for one in read_filters(section.filters) if isinstance(one, Difficulty)), None)
    if given is None:
        return ()
    from launcher.cluster.loss_replicas import measured_losses  # noqa: PLC0415  (torch, which takes seconds)
    from sft.construction.local_model import sample_of  # noqa: PLC0415  (torch)
    from sft.model.loading import check_model  # noqa: PLC0415  (torch)
    from sft.training.whole_evaluation import models_of  # noqa: PLC0415  (torch)

    def of_model(path: str) -> DraftLosses:
        def measure(groups: Groups) -> Iterator[tuple[list[tuple[str, int]], Floats]]:
            return measured_losses(job.cluster, connect, laid_out(job.sft, path), groups)

        name = losses_name(job.sft.data, job.sft.model, pipeline.fingerprint, sample_of(path))
        return DraftLosses(folder.log.with_name(name), pipeline, measure)

    losses = [of_model(job.sft.model.path)]
    if given.after is not None:
        try:
            (after,) = models_of(job.sft, [given.after])
            check_model(job.sft.model.model_copy(update={"path": after.path}))
            losses.append(of_model(after.path))
        except UserError as error:
            raise UserError(f"construct.filters.difficulty.after: {error}") from None
    return losses


def _local_teachers(
    job: JobConfig, section: ConstructConfig, connect: Callable[[], bool], opened: ExitStack
) -> dict[int, Teacher]:
    """Those that are loaded on the workers, by number; they are until the stack is closed."""
    teachers = section.teachers
    numbers = [i for i, teacher in enumerate(teachers) if not teacher.endpoint]
    if not numbers:
        return {}
    from launcher.cluster.teacher_actors import workers_of_teachers  # noqa: PLC0415  (torch, which takes seconds)
    from sft.construction.local_model import check_local_model  # noqa: PLC0415  (torch)

    num_workers = job.cluster.max_workers
    if 1 < num_workers < len(numbers):
        raise UserError(
            f"cluster.workers={num_workers}: there are {len(numbers)} local teachers, and each needs a worker of its "
            f"own. Give as many workers, or fewer teachers."
        )
    open_replicas = opened.enter_context(workers_of_teachers(job.cluster, connect))
    recipes, local = read_recipes(section.recipes), dict[int, Teacher]()
    for place, i in enumerate(numbers):
        writes_user = any(recipe.needs_local and i in teachers_of(recipe, teachers) for recipe in recipes)
        model = check_local_model(job.sft, teachers[i].path, writes_user)
        num_own = max(1, len(range(place, num_workers, len(numbers))))
        at_once = teachers[i].at_once or AT_ONCE * num_own
        title = f"{model.config.model.path} ({model.fingerprint[:_SHOWN_DIGITS]})"
        local[i] = LocalTeacher(model.fingerprint, title, at_once, partial(open_replicas, model.config, num_own))
    return local


def _show_estimate(work: Work, section: ConstructConfig, console: Console) -> None:
    num, tokens = work.estimate()
    cost = Spending(section.budget).cost_of(tokens)
    text = f"{counted(work.num, 'record')} wanted, in all {_spent(num, tokens, cost, 'at most about ')}"
    console.print(text, highlight=False)
    for judge in (one for one in read_filters(section.filters) if isinstance(one, Graded)):
        num, tokens = usual_grading(judge, work)
        cost = Spending(section.budget).cost_of(tokens)
        text = f"and the judge: {_spent(num, tokens, cost, 'at most about ')}, one for each draft that comes to it"
        console.print(text, highlight=False)
    for title, num_hidden in work.num_hidden.items():
        text = f"{short_name(title)}: {counted(num_hidden, 'passage')} not shown: held-out examples have the same words"
        console.print(text, highlight=False, markup=False)
    if not_shown := said_of_others(work.no_seeds):
        text = f"records that were drawn as seeds, and are none. {not_shown.strip()}"
        console.print(text, highlight=False, markup=False)
    for title, tasks in work.without_seeds.items():
        names = ", ".join(map(short_name, tasks))
        text = f"{short_name(title)} makes nothing of tasks without a record that may be shown: {names}"
        console.print(text, highlight=False, markup=False)


@contextmanager
def _progress_shown(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar for each thing that is done on a terminal; elsewhere a line every 15 seconds."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        shown, printed = dict[str, TaskID](), time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal printed
            what, spending = progress.what, progress.spending
            state = _spent(spending.num_requests, spending.tokens, spending.cost)
            if progress.away:
                state += f", away: {', '.join(progress.away)}"
            if what not in shown:
                shown[what] = bars.add_task(what, total=None, state="")
            bars.update(shown[what], total=progress.num, completed=progress.num_done, state=state)
            if not console.is_terminal and time.monotonic() - printed > _PLAIN_EVERY_SECONDS:
                text = f"{what}: {progress.num_done:,} of {progress.num:,}, {state}"
                console.print(text, highlight=False, markup=False, soft_wrap=True)
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
    where = f"in {path}: construct.html shows it, DATA_CARD.md describes it"
    approve = f"people approve what is trained: sft review {shlex.quote(str(path))}"
    text = f"{where}\n{approve if done.counts.kept else 'nothing is kept, so there is nothing to approve'}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _numbers(counts: Counts) -> list[str]:
    numbers = counts.wanted, counts.kept, counts.dropped.total(), counts.not_made.total()
    return [f"{number:,}" for number in numbers]


def _spent(num: int, tokens: Tokens, cost: float | None, about: str = "") -> str:
    text = f"{about}{counted(num, 'request')}, {tokens.total:,} tokens"
    return text if cost is None else f"{text}, cost {cost:,.2f}"
