"""Shows a job's plan and forecast on the console."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.durations import duration
from launcher.node_tables import failure_parts, network_lines
from launcher.plan import JobPlan, StageRequest
from sft.data.planning.mixture import MixtureRow
from sft.evaluation.tables import mixture_table, short_count
from sft.printable import counted
from sft.sizing.fit import GIB
from sft.sizing.forecast import Forecast, StageForecast, WorkerForecast
from sft.sizing.storage import Storage

_UNKNOWN = "–"


def plan_table(plan: JobPlan, forecast: Forecast) -> RenderableType:
    """What is asked of the cluster, a row for each stage, what a worker and the whole need, and what to do about it."""
    workers = f"{plan.workers} worker{_s(plan.max_workers)}"
    parts: list[RenderableType | str] = [
        f"{workers}: {counted(plan.cpus, 'CPU')}, {counted(plan.gpus, 'GPU')}; "
        f"{counted(plan.packs_per_step, 'pack')} a step"
    ]
    if forecast.model is not None:
        model = forecast.model
        sizes = ", ".join(f"{name} {short_count(size)}" for name, size in model.parts.items() if size)
        parts.append(f"model: {model.family}, {short_count(model.num_parameters)} parameters: {sizes}")
    most = f", with {plan.max_workers} workers" if plan.is_elastic else ""
    parts += [_request_table(plan.stages, most), _stage_table(forecast.stages, most)]
    parts += [
        mixture_table(stage.name, [MixtureRow(**row) for row in stage.mixture])
        for stage in forecast.stages
        if stage.mixture
    ]
    if forecast.workers:
        parts += [_memory_table(forecast.workers, plan.gpus > 0), _moment_line(forecast.workers)]
        parts += [_limits_line(worker) for worker in forecast.workers if worker.engine == "zero3"]
    if forecast.storage is not None:
        parts.append(_disk_line(forecast.storage))
    for worker in forecast.workers:
        if worker.capacity is not None:
            parts += [_fit_line(worker), _option_table(worker)]
        if worker.changes:
            parts.append(_change_table(worker))
    parts += network_lines(forecast)
    parts += failure_parts(forecast)
    parts += [f"note: {finding}" for finding in forecast.findings]
    # Names of a config are not to be read as markup.
    return Group(*(Text(part) if isinstance(part, str) else part for part in parts))


def _request_table(stages: Sequence[StageRequest], most: str) -> Table:
    table = _table(f"Stages{most}", "stage", "budget")
    if any(stage.empty_packs_per_step for stage in stages):
        table.caption = "empty pack: has no tokens; a worker that gets one has less to do in that micro-batch"
    for column in ("pack length", "slots a step", "micro-batches a step", "empty packs a step"):
        table.add_column(column, justify="right")
    for stage in stages:
        numbers = (
            stage.pack_len_tokens,
            stage.slots_per_step,
            stage.micro_batches_per_step,
            stage.empty_packs_per_step,
        )
        table.add_row(stage.name, stage.budget, *(f"{number:,}" for number in numbers))
    return table


def _stage_table(stages: Iterable[StageForecast], most_workers: str) -> Table:
    """What `sft prepare` found, and what follows from it. Before it ran, tokens and times are those of full packs."""
    table = _table(f"Work{most_workers}", "stage")
    table.caption = "traffic: what each worker receives and sends in a step"
    columns = ("packs", "steps", "tokens", "supervised", "filled", "a step", "in all", "cost", "traffic, GiB")
    for column in columns:
        table.add_column(column, justify="right")
    for stage in stages:
        most = "" if stage.is_planned else "≤ "
        table.add_row(
            stage.name,
            _count(stage.num_packs),
            _count(stage.num_steps),
            _UNKNOWN if stage.num_tokens is None else most + short_count(stage.num_tokens),
            _UNKNOWN if stage.num_supervised_tokens is None else short_count(stage.num_supervised_tokens),
            _UNKNOWN if stage.fill is None else f"{stage.fill:.1%}",
            _UNKNOWN if stage.step_seconds is None else f"{most}{stage.step_seconds:,.2f} s",
            _UNKNOWN if stage.seconds is None else most + duration(stage.seconds),
            _UNKNOWN if stage.cost is None else f"{most}{stage.cost:,.0f}",
            _UNKNOWN if stage.traffic is None else f"{sum(stage.traffic) / GIB:,.1f}",
        )
    return table


def _memory_table(workers: tuple[WorkerForecast, ...], has_gpus: bool) -> Table:
    """A column for each number of workers."""
    table = _table(f"Memory of each {'GPU' if has_gpus else 'worker'} at its largest, GiB", "")
    for worker in workers:
        table.add_column(_workers(worker).removeprefix("with "), justify="right")
    memories = [worker.memory for worker in workers]
    _add_bytes(table, "parameters, its part", [memory.states.parameters for memory in memories])
    _add_bytes(table, "gradients, its part", [memory.states.gradients for memory in memories])
    _add_bytes(table, "optimizer, its part", [memory.states.optimizer for memory in memories])
    _add_bytes(table, "whole parameters in use", [memory.gathered for memory in memories])
    _add_bytes(table, "whole gradients on their way", [memory.reduction for memory in memories])
    _add_bytes(table, "activations", [memory.activations for memory in memories])
    _add_bytes(table, "logits and loss", [memory.logits for memory in memories])
    if has_gpus:
        _add_bytes(table, "allowance: CUDA, NCCL, gaps", [w.num_bytes - w.memory.total for w in workers])
        _add_bytes(table, "in all", [worker.num_bytes for worker in workers], style="bold")
        _add_bytes(table, "a GPU has", [worker.capacity for worker in workers])
        table.add_section()
        _add_bytes(table, "host memory: offloaded", [worker.host.states for worker in workers])
    else:
        _add_bytes(table, "in all", [memory.total for memory in memories], style="bold")
        table.add_section()
        _add_bytes(table, "host memory: blocks that glibc keeps (allowance)", [w.host.kept_blocks for w in workers])
    _add_bytes(table, "host memory: copy of a checkpoint", [worker.host.checkpoint for worker in workers])
    _add_bytes(table, "host memory: process (allowance)", [worker.host.process for worker in workers])
    _add_bytes(table, "host memory of a worker, in all", [worker.host.total for worker in workers], style="bold")
    return table


def _moment_line(workers: tuple[WorkerForecast, ...]) -> str:
    moments = dict.fromkeys(f"{worker.memory.when} (stage {worker.stage})" for worker in workers)
    return f"at its largest: {' · '.join(moments)}"


def _change_table(worker: WorkerForecast) -> Table:
    """What to change if it does not fit: changes of `train` add up; each of the others comes on top of them."""
    table = _table(f"What changes it, {_workers(worker)}", "setting")
    table.add_column("GiB", justify="right")
    table.add_column("")
    table.add_column("price")
    for change in worker.changes:
        enough = worker.capacity is not None and change.num_bytes <= worker.capacity
        verdict = Text("fits", style="green") if enough else Text("not enough", style="yellow")
        setting = Text(change.setting, overflow="fold")
        table.add_row(setting, f"{change.num_bytes / GIB:,.1f}", verdict, change.price)
    if all(change.num_bytes > (worker.capacity or 0) for change in worker.changes):
        table.caption = "None is enough alone: combine several, or choose a GPU with more memory or a smaller model."
    return table


def _option_table(worker: WorkerForecast) -> Table:
    """What recomputation saves and costs, with the packs that a micro-batch has."""
    table = _table(f"Recomputed activations, {_workers(worker)}", "setting")
    for column in ("layers", "more arithmetic", "GiB", "host, GiB", "largest packs"):
        table.add_column(column, justify="right")
    table.add_column("")
    for option in worker.options:
        table.add_row(
            Text(option.setting, overflow="fold"),
            str(option.num_recomputed),
            f"{option.more_arithmetic:.0%}",
            f"{option.num_bytes / GIB:,.1f}",
            f"{option.host_bytes / GIB:,.1f}",
            str(option.largest_packs or _UNKNOWN),
            "taken" if option.is_taken else "",
        )
    return table


def _fit_line(worker: WorkerForecast) -> str:
    room = f"{_gib(worker.num_bytes)} of {_gib(worker.capacity or 0)}"
    packs = worker.largest_packs_per_micro_batch
    largest = f"largest packs_per_micro_batch: {packs}"
    if not worker.fits:
        return f"does not fit {_workers(worker)}: {room}; {largest if packs else 'no pack does'}"
    return f"fits {_workers(worker)}: {worker.chosen}; {largest}"


def _limits_line(worker: WorkerForecast) -> str:
    limits = worker.buckets
    return (
        f"ZeRO-3 {_workers(worker)}, in elements: gradients are reduced by {short_count(limits.reduce)}; parameters "
        f"are gathered {short_count(limits.prefetch)} ahead, up to {short_count(limits.live)} whole; tensors of up to "
        f"{short_count(limits.persistent)} stay whole"
    )


def _disk_line(storage: Storage) -> str:
    store = "the token store" if storage.token_store is None else f"a token store of {_gib(storage.token_store)}"
    more = " and " if storage.token_store is not None else ", without "
    checkpoints = f"{storage.num_checkpoints} checkpoint{_s(storage.num_checkpoints)} of {_gib(storage.checkpoint)}"
    models = f"{storage.num_models} model{_s(storage.num_models)} of {_gib(storage.model)}"
    return f"disk: at the most {_gib(storage.total)}: {checkpoints}, {models}{more}{store}"


def _add_bytes(table: Table, name: str, sizes: Iterable[int | None], style: str = "") -> None:
    shown = [_UNKNOWN if size is None else f"{size / GIB:,.2f}" for size in sizes]
    if any(text not in (_UNKNOWN, "0.00") for text in shown):
        table.add_row(name, *shown, style=style)


def _table(title: str, *left: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in left:
        table.add_column(column)
    return table


def _workers(worker: WorkerForecast) -> str:
    return f"with {worker.num_workers} worker{_s(worker.num_workers)}"


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
