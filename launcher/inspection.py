"""The verb `inspect`: shows examples of a job's store, writes them as a page, or checks every row of it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from launcher.preparation import open_store
from sft.atomic_files import write_text
from sft.config import SftConfig
from sft.data.block_preparer import BlockPreparer
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.difficulty.loss_table import known_losses, row_in_words
from sft.errors import UserError
from sft.inspection.check_result import CheckResult, InvariantResult
from sft.inspection.mask_check import check_store
from sft.inspection.page import render_page
from sft.inspection.rendered_rows import render_rows
from sft.inspection.selection import Wanted, choose_rows
from sft.inspection.terminal import render_example, render_legend
from sft.inspection.token_view import ShownExample, TokenView
from sft.run_folder import RunFolder

NUM_ON_CONSOLE = 3
NUM_ON_PAGE = 200


def open_rows(config: SftConfig, console: Console) -> tuple[TokenStore, BlockPreparer]:
    """The token store of the job, built if it is not there yet, and the preparer of its rows.

    Raises:
        UserError: the data cannot be used.
    """
    recipe = StoreRecipe.of(config.data, config.model)
    return open_store(recipe, console), recipe.preparer


def show(config: SftConfig, wanted: Wanted, num_rows: int, seed: int, console: Console) -> None:
    """Print examples.

    Raises:
        UserError: the data cannot be used, or no example matches `wanted`.
    """
    store, _ = open_rows(config, console)
    examples = _read(config, store, wanted, num_rows, seed)
    coloured = console.is_terminal and not console.no_color
    for text in (render_legend(coloured), *(render_example(example, coloured) for example in examples)):
        # On a terminal lines are broken at words; a file keeps them whole.
        console.print(text, soft_wrap=not console.is_terminal)


def write_page(config: SftConfig, wanted: Wanted, num_rows: int, seed: int, path: Path, console: Console) -> None:
    """Write examples as a page.

    Raises:
        UserError: the data cannot be used, no example matches `wanted`, or the page cannot be written.
    """
    store, _ = open_rows(config, console)
    examples = _read(config, store, wanted, num_rows, seed)
    about = wanted.as_text()
    chosen = f"chosen at random (seed {seed})" if len(examples) < len(store) else "all there are"
    try:
        write_text(path, render_page(config.run.name, store, examples, f"{about}, {chosen}" if about else chosen))
    except OSError as error:
        raise UserError(f"--html {path}: the page cannot be written: {error.strerror}") from None
    console.print(f"{len(examples):,} rows: {path}", highlight=False, soft_wrap=True)


def check(config: SftConfig, console: Console) -> bool:
    """Check every row of the store against its sources, and print what was found; returns whether every invariant
    holds.

    Raises:
        UserError: the data cannot be used.
    """
    store, preparer = open_rows(config, console)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("checking", total=len(store))
        result = check_store(
            store,
            load_tokenizer(config.model),
            config.data.max_len_tokens,
            render_rows(store, preparer),
            lambda num_rows: bars.update(bar, completed=num_rows),
            preparer.pipeline.inference,
        )
    _print_result(result, store, console)
    return result.holds


def _read(config: SftConfig, store: TokenStore, wanted: Wanted, num_rows: int, seed: int) -> list[ShownExample]:
    rows = choose_rows(store, wanted, num_rows, seed)
    view = TokenView(load_tokenizer(config.model))
    models = known_losses(RunFolder(config.run.dir).losses(store.path.name), len(store))
    return [view.read(store, int(row), row_in_words(models, int(row))) for row in rows]


def _print_result(result: CheckResult, store: TokenStore, console: Console) -> None:
    table = Table("invariant", title=f"Mask of store {store.path.name}", title_justify="left", title_style="bold")
    table.add_column("checked", justify="right")
    table.add_column("violations", justify="right")
    for row in result.invariants:
        violations = f"{row.num_violations:,}" if row.num_checked else "not checked"
        style = "red" if row.num_violations else "green"
        table.add_row(row.invariant.value, f"{row.num_checked:,}", Text(violations, style=style))
    console.print(table)
    _print_violations(result.invariants, store, console)
    console.print(
        f"{result.num_rows:,} rows, {result.num_tokens:,} tokens, {result.num_supervised_tokens:,} of them learned: "
        f"{result.num_answers:,} answers, {result.num_stops:,} stop tokens. "
        + ("Every invariant holds." if result.holds else "The mask is not what it should be."),
        highlight=False,
        soft_wrap=True,
    )


def _print_violations(results: Sequence[InvariantResult], store: TokenStore, console: Console) -> None:
    for result in (result for result in results if result.first):
        console.print(Text(f"{result.invariant.value}:", style="red"))
        for row, what in result.first:
            place = "" if row is None else f"row {row} ({_place(store, row)}): "
            console.print(Text(f"  {place}{what}"), soft_wrap=True)
        if result.num_violations > len(result.first):
            console.print(f"  … and {result.num_violations - len(result.first):,} more", highlight=False)


def _place(store: TokenStore, row: int) -> str:
    try:
        return str(store.location(row))
    except IndexError:  # the store that is checked may be broken
        return "its file is not known"
