"""Turns a run folder into one self-contained HTML page: no scripts, and nothing to load from elsewhere.

Invariant: text from data (tasks, prompts, answers, the config) is escaped; only the plots, which are made here, are
inserted as they are. A run still under way has a page too, which says what is missing.
"""

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sft.atomic_files import write_text
from sft.errors import UserError
from sft.evaluation import plots
from sft.evaluation.answers_page import asked_in, write_answers
from sft.evaluation.made_data import made_of_models, made_rows
from sft.evaluation.report_answers import answer_facts, answers_part
from sft.evaluation.run_records import RunRecords, StageRecord, read_run
from sft.evaluation.score_rows import rows_of, title_of, total_of
from sft.evaluation.score_texts import range_text, score_text, sentence
from sft.evaluation.scores import LOSS, Evaluation, main_metrics, metrics_beside_answers, metrics_of
from sft.evaluation.tables import change_text, number, percent, short_count, value_text
from sft.metrics import StepMetrics
from sft.pages import page_environment
from sft.run_folder import RunFolder
from sft.stage_end import end_in_words


def render_report(run: RunFolder, read: RunRecords | None = None) -> str:
    """The page as text.

    Args:
        run: its folder.
        read: what is in it, if the caller has read it.

    Raises:
        UserError: there is no such run folder, or a published file in it is damaged.
    """
    records = read or read_run(run)
    environment = page_environment("sft.evaluation")
    environment.filters |= {"number": number, "percent": percent, "count": short_count, "duration": _duration}
    environment.filters |= {"value": value_text, "change": change_text}
    environment.filters |= {"score": score_text, "range": range_text, "said": sentence}
    return environment.get_template("report.html.j2").render(
        run=records,
        status=_status(records),
        facts=_facts(records),
        answers=answers_part(records) if records.scores else None,
        heldout=list(_heldout(records)),
        time_plots={
            plot.__name__: Markup(plot(records))
            for plot in (plots.loss_plot, plots.schedule_plot, plots.throughput_plot, plots.memory_plot)
            if records.steps
        },
        mixtures=[
            (stage, stage.plan, Markup(plots.mixture_plot(stage.index, stage.plan)))
            for stage in records.stages
            if stage.plan is not None and stage.plan.mixture
        ],
        difficulty_plot=Markup(plots.difficulty_plot(records.difficulty)) if records.difficulty else None,
        throughput=_throughput(records),
        manifest_text=json.dumps(records.manifest, indent=1, ensure_ascii=False) if records.manifest else "",
        notes=_notes(records.stages),
        made=made_rows(made_of_models(records.manifest)),
        history=_history(records),
    )


def write_report(run: RunFolder, read: RunRecords | None = None) -> Path:
    """Write the page into the run folder, and that of all answers, if there are some.

    Args:
        run: its folder.
        read: what is in it, if the caller has read it.

    Raises:
        UserError: there is no such run folder, a published file in it is damaged, or a page cannot be written.
    """
    records = read or read_run(run)
    page = render_report(run, records)
    if records.scores:
        write_answers(run.answers_page, asked_in(run, records), run.report.name)
    try:
        write_text(run.report, page)
    except OSError as error:
        raise UserError(
            f"{run.report} cannot be written: {error.strerror}. Make room or correct the rights, then run `sft report`."
        ) from error
    return run.report


def _status(run: RunRecords) -> str:
    planned = run.config.get("stages")
    num_stages = len(planned) if isinstance(planned, list) else len(run.stages)
    num_complete = sum(stage.is_complete for stage in run.stages)
    if num_stages and num_complete == num_stages:
        return "finished"
    return "under way or stopped" if run.steps else "not started"


def _facts(run: RunRecords) -> list[tuple[str, str, str]]:
    """What a reader wants to know first: label, value, and a remark under it."""
    model = run.config.get("model")
    num_planned = sum(stage.num_steps for stage in run.stages)
    num_done = sum(stage.num_done for stage in run.stages)
    stages = " → ".join(stage.name for stage in run.stages) or "–"
    num_rolled_back = sum(stage.num_rolled_back for stage in run.stages)
    facts = [
        ("model", _short_path(str(model.get("path", "–"))) if isinstance(model, dict) else "–", ""),
        ("stages", str(len(run.stages)), stages),
        ("steps", f"{num_done:,}", "" if num_done == num_planned else f"of {num_planned:,} planned so far"),
        (
            "supervised tokens",
            short_count(sum(step.num_supervised_tokens for step in run.steps)),
            "trained on",
        ),
    ]
    metrics = (metrics_beside_answers if run.scores else main_metrics)(run.evaluations)
    facts += list(answer_facts(run))
    facts += [
        (f"held-out {metric.title}", *_score_fact(run.evaluations, name)) for name, metric in metrics.items()
    ] or [(f"held-out {LOSS.title}", "–", "not measured yet")]
    supervised = _median(step.supervised_tokens_per_second for step in run.steps)
    in_all = _median(step.tokens_per_second for step in run.steps)
    remark = f"median; {short_count(in_all)} with the prompts" if math.isfinite(in_all) else ""
    facts.append(("supervised tokens/s", short_count(supervised) if math.isfinite(supervised) else "–", remark))
    remark = f"{num_rolled_back:,} steps rolled back" if num_rolled_back else ""
    facts.append(("restarts", str(run.num_restarts), remark))
    return facts


def _history(run: RunRecords) -> list[str]:
    """What happened in the run besides going from one stage to the next."""
    began = []
    if start := run.config.get("from"):
        began = [f"The run began with stage {start['stage']} of {start['run']}, after {start['step']:,} steps of it."]
    ended = [f"{_sentence(end_in_words(stage.end))}." for stage in run.stages if stage.end and stage.end.best]
    extended = [
        f"Stage {stage.name} was extended after step {added.first_step:,} by {added.num_steps:,} steps, with a learning"
        f" rate of {added.schedule['lr']:g} at its peak ({added.schedule['schedule']})."
        for stage in run.stages
        if stage.plan is not None
        for added in stage.plan.extensions
    ]
    checked = [
        f"In plain transformers, the {name} of stage {stage.name} is {text}."
        for stage in run.stages
        for name, text in stage.checked.items()
    ]
    return [*began, *ended, *extended, *checked]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short_path(path: str) -> str:
    """A Hub id as it is; the last two parts of a folder's path."""
    return "/".join(Path(path).parts[-2:])


def _score_fact(evaluations: Sequence[Evaluation], metric: str) -> tuple[str, str]:
    """Over all tasks: the first and the last value, and the change."""
    total = total_of(evaluations, metric)
    first, last = (value_text(total.metric, total.values[place], 3) for place in (0, -1))
    if len(evaluations) == 1:
        return last, f"{evaluations[0].name}; no other measured yet"
    change = change_text(total.metric, total.change)
    return f"{first} → {last}", f"{change}, all tasks" if math.isfinite(total.change) else "base not measured"


def _heldout(run: RunRecords) -> Iterator[dict[str, Any]]:
    """For each metric that no answer is needed for: rows by task, rows with totals, and a plot."""
    evaluations = run.evaluations
    for name, metric in (metrics_beside_answers if run.scores else metrics_of)(evaluations).items():
        rows = [*rows_of(evaluations, name)]
        has_both_kinds = len({row.unseen for row in rows}) == 2
        kinds = (False, True, None) if has_both_kinds else (None,)
        yield {
            "metric": metric,
            "counted": "" if metric.over == "num_examples" else metric.over.removeprefix("num_").replace("_", " "),
            "titles": [title_of(evaluation) for evaluation in evaluations],
            "rows": rows,
            "totals": [total_of(evaluations, name, kind) for kind in kinds],
            "plot": Markup(plots.score_plot(evaluations, name)),
        }


def _throughput(run: RunRecords) -> list[dict[str, Any]]:
    return [
        {
            "name": stage.name,
            "num_steps": stage.num_done,
            "num_steps_planned": stage.num_steps,
            "seconds": sum(step.seconds for step in stage.steps),
            "stall_seconds": sum(step.checkpoint_stall_seconds for step in stage.steps),
            "input_wait_share": _wait_share(stage.steps),
            "tokens_per_second": _median(step.tokens_per_second for step in stage.steps),
            "supervised_tokens_per_second": _median(s.supervised_tokens_per_second for s in stage.steps),
            "peak_memory_gib": max((s.peak_memory_gib for s in stage.steps if s.peak_memory_gib > 0), default=math.nan),
            "num_restarts": len(stage.restarts),
            "num_rolled_back": stage.num_rolled_back,
        }
        for stage in run.stages
        if stage.steps
    ]


def _notes(stages: Iterable[StageRecord]) -> list[str]:
    return [
        f"{stage.num_unreadable_lines} unreadable lines of the metrics of stage {stage.name} are left out."
        for stage in stages
        if stage.num_unreadable_lines
    ]


def _wait_share(steps: Iterable[StepMetrics]) -> float:
    """The part of the steps' time that ranks waited for data; NaN if no step has recorded it."""
    known = [(step.input_wait_seconds, step.seconds) for step in steps if step.input_wait_seconds is not None]
    seconds = sum(seconds for _, seconds in known)
    return sum(wait for wait, _ in known) / seconds if seconds else math.nan


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return statistics.median(known) if known else math.nan


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
