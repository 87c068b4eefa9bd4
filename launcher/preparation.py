"""Prepares a job's data with a progress bar, and shows what came of it: counts, then each stage's mixture."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from sft.config import SftConfig
from sft.data.mixture import MixtureRow
from sft.data.pack_plan import PackPlan
from sft.data.preparation import Progress
from sft.data.token_store import TokenStore
from sft.evaluation.tables import mixture_table
from sft.training.workload import Workload, prepare_workload


def prepare(config: SftConfig, console: Console) -> tuple[Workload, TokenStore, list[PackPlan]]:
    """Make the token store and the stages' plans, where they are not there yet, and show them.

    Raises:
        UserError: the data or the mixture cannot be used.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("preparing", state="")

        def report(progress: Progress) -> None:
            bar.update(line, description=f"preparing {progress.source}", state=f"{progress.num_records:,} records")

        prepared = prepare_workload(config, report)
    _workload, store, plans = prepared
    _show_counts(store.manifest, store.tokens.shape[0], console)
    for stage, plan in zip(config.stages, plans, strict=True):
        console.print(mixture_table(stage.name, [MixtureRow(**row) for row in plan.manifest["mixture"]]))
        console.print(
            f"stage {stage.name}: {plan.manifest['num_steps']:,} steps of {config.train.packs_per_step} packs, "
            f"{plan.manifest['num_tokens']:,} tokens, {plan.manifest['num_supervised_tokens']:,} of them supervised, "
            f"{plan.manifest['fill']:.1%} of slots filled\n",
            highlight=False,
        )
    return prepared


def _show_counts(manifest: Mapping[str, Any], num_tokens: int, console: Console) -> None:
    overlong = sum(manifest["num_overlong"].values())
    parts = [f"{manifest['num_read']:,} records read", f"{manifest['num_kept']:,} kept"]
    parts += [f"{overlong:,} too long"] if overlong else []
    parts += [f"{manifest['num_rejected']:,} rejected"] if manifest["num_rejected"] else []
    console.print(f"data: {', '.join(parts)}, {num_tokens:,} tokens", highlight=False)
