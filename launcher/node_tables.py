"""Shows what depends on the nodes of a job: the traffic on their network, and the cost of their failures."""

from rich import box
from rich.console import RenderableType
from rich.table import Table

from launcher.durations import duration
from sft.sizing.communication import Communication
from sft.sizing.fit import GIB
from sft.sizing.forecast import Forecast, StageForecast
from sft.sizing.goodput import FailureCosts
from sft.sizing.intervals import Interval


def network_lines(forecast: Forecast) -> list[str]:
    """For each stage, how long the network is busy in a step, and how long the step's arithmetic takes."""
    return [
        _network_line(stage, stage.communication, len(forecast.stages) > 1)
        for stage in forecast.stages
        if stage.communication is not None
    ]


def failure_parts(forecast: Forecast) -> list[RenderableType | str]:
    """How often something fails, and how each stage spends its time with several checkpoint intervals."""
    if forecast.failures is None:
        return []
    table = Table(title="Goodput: what the time is spent on, by how often a checkpoint is saved", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for column in ("stage", "a checkpoint every", ""):
        table.add_column(column, overflow="fold")
    for column in ("trains", "waits for saves", "trains again", "restarts", "in all"):
        table.add_column(column, justify="right")
    for stage in forecast.stages:
        for i, interval in enumerate(stage.intervals):
            table.add_row("" if i else stage.name, *_interval_row(interval))
    return [_failures_line(forecast.failures), table]


def _interval_row(interval: Interval) -> list[str]:
    time = duration(interval.seconds)
    every = time if interval.steps is None else f"{interval.steps:,} step{'' if interval.steps == 1 else 's'}, {time}"
    shares, total = interval.shares, interval.run_seconds
    spent = (shares.training, shares.saving, shares.again, shares.restarting)
    name = "" if interval.name == "other" else interval.name
    return [every, name, *(f"{share:.2%}" for share in spent), "–" if total is None else duration(total)]


def _failures_line(costs: FailureCosts) -> str:
    saves = f"a save holds up the training for {duration(costs.stall)}"
    if costs.writing:
        saves += f" and is written {duration(costs.writing)} later, while it goes on"
    return f"failures: one every {duration(costs.between_failures)}; a restart takes {duration(costs.restart)}; {saves}"


def _network_line(stage: StageForecast, network: Communication, is_one_of_many: bool) -> str:
    name = f"network, stage {stage.name}" if is_one_of_many else "network"
    without, with_hpz = (network.reducing + gathering for gathering in (network.gathering, network.gathering_with_hpz))
    used = ", which the config asks for" if network.has_hpz else f", {network.hpz_bytes / GIB:,.1f} GiB more a worker"
    busy = (
        f"{name}: gathering parameters and reducing gradients takes {without:,.2f} s of a step between the nodes, "
        f"{with_hpz:,.2f} s with hpZ{used}"
    )
    if stage.arithmetic_seconds is None:
        return busy
    if network.seconds <= stage.arithmetic_seconds:
        return f"{busy}; the arithmetic takes {stage.arithmetic_seconds:,.2f} s, and hides that if both overlap"
    helps = not network.has_hpz and network.gathering_with_hpz < network.gathering
    hint = f"; try deepspeed.hpz_partition_size={network.hpz_size}" if helps else ""
    longer = f"that is longer than the arithmetic ({stage.arithmetic_seconds:,.2f} s): a step takes as long"
    return f"{busy}; {longer}{hint}"
