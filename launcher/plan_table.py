"""Shows a job's plan on the console."""

from rich.console import Group, RenderableType
from rich.table import Table

from launcher.plan import JobPlan


def plan_table(plan: JobPlan) -> RenderableType:
    """What is asked of the cluster, then a row for each stage."""
    table = Table(title="Stages", title_justify="left")
    for column in ("stage", "budget", "pack length", "slots a step", "micro-batches a step", "empty packs a step"):
        table.add_column(column, justify="left" if column in ("stage", "budget") else "right")
    for stage in plan.stages:
        numbers = (
            stage.pack_len_tokens,
            stage.slots_per_step,
            stage.micro_batches_per_step,
            stage.empty_packs_per_step,
        )
        table.add_row(stage.name, stage.budget, *(f"{number:,}" for number in numbers))
    return Group(
        f"{plan.workers} workers: {plan.cpus} CPUs, {plan.gpus} GPUs; {plan.packs_per_step} packs a step", table
    )
