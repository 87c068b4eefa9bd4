"""The rules that tie fields of the config together. Each yields its problems: what is wrong, where, and the way out.

A rule is a pure function over whole sections. It runs if its sections are readable, even if others are not, so that one
run of the command reports everything.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sft.config import (
    BudgetConfig,
    CheckpointConfig,
    DataConfig,
    FromConfig,
    ModelConfig,
    RunConfig,
    StageConfig,
)
from sft.config_evaluation import EvaluateConfig
from sft.config_paths import named_paths
from sft.config_section import Section
from sft.config_training import DeepSpeedConfig, TrainConfig
from sft.deepspeed_extra import refused
from sft.errors import UserError
from sft.optimizers import OPTIMIZERS
from sft.recomputed_layers import packs_or_one


class Problem(NamedTuple):
    """One thing that is wrong in a config: where, what was given, the rule it breaks, the way out."""

    path: str
    value: Any
    rule: str
    way_out: str
    also_about: tuple[str, ...] = ()
    """Paths of other fields that it depends on: if one of them cannot be read, this problem is not reported."""


Stages = tuple[StageConfig, ...]


def stage_names_are_unique(stages: Stages) -> Iterator[Problem]:
    """Stages are found by name."""
    yield from _repeated_names("stages", [stage.name for stage in stages])


def source_names_are_unique(data: DataConfig) -> Iterator[Problem]:
    """Sources are found by name."""
    yield from _repeated_names("data.sources", [source.name for source in data.sources])


def _repeated_names(path: str, names: Sequence[str]) -> Iterator[Problem]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Problem(
                f"{path}.{i}.name", name, "is already the name of an earlier one", "give it a name of its own"
            )


def one_budget(stages: Stages) -> Iterator[Problem]:
    """A stage ends in exactly one way."""
    for i, stage in enumerate(stages):
        given = {k: v for k, v in stage.budget.model_dump().items() if v is not None}
        if len(given) != 1:
            yield Problem(
                f"stages.{i}.budget",
                given or "nothing",
                f"exactly one of {', '.join(BudgetConfig.model_fields)} is needed",
                "name one, such as {epochs: 1}",
            )


def one_warmup(stages: Stages) -> Iterator[Problem]:
    """The warm-up is a number or a share of steps, and ends before the stage does (if its steps are known here)."""
    for i, stage in enumerate(stages):
        ratio, steps, path = stage.optimizer.warmup_ratio, stage.optimizer.warmup_steps, f"stages.{i}.optimizer"
        if steps is not None and ratio:
            yield Problem(f"{path}.warmup_ratio", ratio, "is given beside warmup_steps", "remove one of the two")
        if steps is not None and stage.budget.steps is not None and steps >= stage.budget.steps:
            rule = f"is all of the stage's {stage.budget.steps} steps: the rate never reaches its peak"
            yield Problem(f"{path}.warmup_steps", steps, rule, "warm up for fewer", (f"stages.{i}.budget",))


def epochs_are_those_of_the_budget(
    stages: Stages, checkpoint: CheckpointConfig, evaluate: EvaluateConfig
) -> Iterator[Problem]:
    """Epochs are counted only by a budget in epochs; a stage with a budget in steps or tokens has none."""
    other = [(i, stage.name) for i, stage in enumerate(stages) if stage.budget.epochs is None]
    for section, every in (("checkpoint", checkpoint.every_epochs), ("evaluate", evaluate.every_epochs)):
        if every is not None and other:
            rule = f"counts epochs, but the budget of stage {other[0][1]} is not in epochs"
            about = (f"stages.{other[0][0]}.budget",)
            yield Problem(f"{section}.every_epochs", every, rule, f"give {section}.every_steps instead", about)


def rates_have_their_numbers(stages: Stages) -> Iterator[Problem]:
    """`temperature` and `weights` are given with the rates of that name, and with no others."""
    for i, stage in enumerate(stages):
        mixture = stage.mixture
        for field, value in (("temperature", mixture.temperature), ("weights", mixture.weights or None)):
            path = f"stages.{i}.mixture.{field}"
            if (mixture.rates == field) != (value is not None):
                about = (f"stages.{i}.mixture.rates",)
                if value is None:
                    yield Problem(path, "nothing", f"`rates: {field}` needs it", f"give {path}", about)
                else:
                    rule = f"goes with `rates: {field}`, but the rates are `{mixture.rates}`"
                    yield Problem(path, value, rule, f"set rates to {field}, or remove it", about)
        if mixture.weights and mixture.tasks is not None:
            rule = "`weights` names the tasks already"
            yield Problem(f"stages.{i}.mixture.tasks", list(mixture.tasks), rule, "remove `tasks`")


def settings_are_of_the_optimizer(stages: Stages) -> Iterator[Problem]:
    """A setting that the named optimizer does not have would change nothing."""
    for i, stage in enumerate(stages):
        name = stage.optimizer.name
        for field in sorted({field for traits in OPTIMIZERS.values() for field in traits.settings}):
            path, value = f"stages.{i}.optimizer.{field}", getattr(stage.optimizer, field)
            about = (f"stages.{i}.optimizer.name",)
            if field in OPTIMIZERS[name].settings and value is None:
                yield Problem(path, "nothing", f"`name: {name}` needs it", "remove it: it has a default", about)
            elif field not in OPTIMIZERS[name].settings and value is not None:
                of = " or ".join(other for other, traits in OPTIMIZERS.items() if field in traits.settings)
                rule = f"goes with `name: {of}`, but the optimizer is `{name}`"
                yield Problem(path, value, rule, "remove it", about)


def replay_is_of_earlier_stages(stages: Stages, start: FromConfig | None) -> Iterator[Problem]:
    """Only earlier stages can be replayed, and a part of the stage must be new."""
    for i, stage in enumerate(stages):
        earlier = [*(start.mixtures if start else ()), *(s.name for s in stages[:i])]
        for name in stage.mixture.replay:
            if name not in earlier:
                way_out = f"name one of {', '.join(earlier)}" if earlier else "the first stage has none: remove it"
                yield Problem(f"stages.{i}.mixture.replay.{name}", name, "is not an earlier stage", way_out, ("from",))
        total = sum(stage.mixture.replay.values())
        if total >= 1:
            rule = "replay takes the whole stage: the shares must add up to less than 1"
            yield Problem(f"stages.{i}.mixture.replay", total, rule, "make the shares smaller")


def examples_fit_a_pack(stages: Stages, data: DataConfig, train: TrainConfig) -> Iterator[Problem]:
    """The longest example that is kept must fit into a pack of every stage."""
    reported = set()
    for i, stage in enumerate(stages):
        length = stage.pack_len_tokens or train.pack_len_tokens
        path = f"stages.{i}.pack_len_tokens" if stage.pack_len_tokens else "train.pack_len_tokens"
        if data.max_len_tokens > length and path not in reported:
            reported.add(path)
            rule = f"is shorter than the longest example (data.max_len_tokens: {data.max_len_tokens})"
            about = (f"stages.{i}.pack_len_tokens", "data.max_len_tokens")
            yield Problem(path, length, rule, "make packs longer or max_len_tokens smaller", about)


def held_out_tasks_are_not_trained(stages: Stages, data: DataConfig) -> Iterator[Problem]:
    """A task cannot be both held out and trained."""
    for i, stage in enumerate(stages):
        for field, tasks in (("weights", tuple(stage.mixture.weights)), ("tasks", stage.mixture.tasks or ())):
            for task in sorted(set(tasks) & set(data.holdout.tasks)):
                rule = "is held out by data.holdout.tasks"
                yield Problem(f"stages.{i}.mixture.{field}", task, rule, "remove it from one of the two")


def held_out_sources_are_known(data: DataConfig) -> Iterator[Problem]:
    """Held-out sources are sources, and at least one is left to train on."""
    names = [source.name for source in data.sources]
    for name in data.holdout.sources:
        if name not in names:
            way_out = f"name one of {', '.join(names)}"
            yield Problem("data.holdout.sources", name, "is not the name of a source", way_out, ("data.sources",))
    if set(names) <= set(data.holdout.sources):
        rule = "every source is held out: nothing is left to train on"
        yield Problem("data.holdout.sources", list(data.holdout.sources), rule, "remove one")


def a_task_is_in_one_cluster(data: DataConfig) -> Iterator[Problem]:
    """In a mean over clusters, each task counts once."""
    cluster_of: dict[str, str] = {}
    for cluster, tasks in data.clusters.items():
        for task in tasks:
            if task in cluster_of:
                rule = f"names {task}, which is already in the cluster {cluster_of[task]}"
                yield Problem(f"data.clusters.{cluster}", list(tasks), rule, "remove it from one of the two")
            cluster_of.setdefault(task, cluster)


def task_tag_names_the_task(data: DataConfig) -> Iterator[Problem]:
    """A tag without the task would be the same for all tasks."""
    tag = data.task_tag
    if tag is not None and "{task}" not in tag.text:
        yield Problem("data.task_tag.text", tag.text, "has no {task} in it", "write, say, `Task type: {task}`")


def staging_dir_is_absolute(data: DataConfig) -> Iterator[Problem]:
    """Each node has its own working folder, so a relative path would differ."""
    if data.staging_dir is not None and not data.staging_dir.startswith(("/", "~", "$")):
        rule = "is a relative path, but every node looks for it"
        yield Problem("data.staging_dir", data.staging_dir, rule, "begin it with /, ~ or a variable of the nodes")


def csv_characters_are_two(data: DataConfig) -> Iterator[Problem]:
    """The delimiter and the quote are one character each, and not the same."""
    for i, source in enumerate(data.sources):
        given = {} if source.csv is None else {"delimiter": source.csv.delimiter, "quote": source.csv.quote or None}
        for field, value in given.items():
            if value is not None and (len(value) != 1 or value in "\r\n\0"):
                rule = "must be one character, and not a line end"
                yield Problem(f"data.sources.{i}.csv.{field}", value, rule, 'write one, such as ";" or "\\t"')
        if given and given["delimiter"] == given["quote"]:
            rule = "is also the delimiter"
            yield Problem(f"data.sources.{i}.csv.quote", given["quote"], rule, "use two different characters")


def only_constructed_sources_are_approved(data: DataConfig) -> Iterator[Problem]:
    """A rule of approval that nothing follows would be taken for one that is kept."""
    for i, source in enumerate(data.sources):
        if source.approve != "each" and not source.constructed:
            rule = "is given, but the source is not constructed, so all of it is trained"
            yield Problem(f"data.sources.{i}.approve", source.approve, rule, "set constructed: true, or remove it")


def urls_hold_no_variables(data: DataConfig, checkpoint: CheckpointConfig) -> Iterator[Problem]:
    """Variables are expanded in local paths (see `sft.absolute_paths`)."""
    urls = {f"data.sources.{i}.path": source.path for i, source in enumerate(data.sources)}
    for path, value in {**urls, "checkpoint.dir": checkpoint.dir or ""}.items():
        found = re.search(r"\$(\w+|\{[^}]*\})", value)
        if found and "://" in value:
            rule = f"holds {found[0]}, which is not expanded in a URL"
            way_out = f'write it out, or give it on the command line, where the shell expands it: {path}="{value}"'
            yield Problem(path, value, rule, way_out)


def homes_are_known(*sections: Section) -> Iterator[Problem]:
    """`~` and `~ada` are home folders of users that this machine knows; the user of a container may have none."""
    for section, name in zip(sections, _WITH_PATHS, strict=True):
        for named in named_paths(section):
            first = named.path.partition("/")[0]
            if first.startswith("~") and os.path.expanduser(first) == first:
                rule = "begins with the home folder of a user, which is not known here"
                path = ".".join(map(str, (name, *named.keys)))
                yield Problem(path, named.path, rule, "set HOME, or write the path out")


_WITH_PATHS = ("run", "model", "data", "checkpoint", "logging")


def models_are_no_urls(model: ModelConfig) -> Iterator[Problem]:
    """Models are loaded from folders and from the Hub. A URL may hold a password, and would be shown as a folder."""
    for field in ("path", "tokenizer", "chat_template"):
        value = getattr(model, field)
        if value is not None and "://" in value:
            way_out = "download it, and name the folder; or name its id on the Hub"
            yield Problem(f"model.{field}", value, "is a URL, but models are not loaded from URLs", way_out)


def start_is_the_model(model: ModelConfig, start: FromConfig | None) -> Iterator[Problem]:
    """A run begins with one model."""
    if start is not None and start.model is not None and model.path != start.model:
        rule = f"is not the model of `from` ({start.model})"
        yield Problem("model.path", model.path, rule, "remove one of the two", ("from",))


def folders_are_no_urls(run: RunConfig, data: DataConfig) -> Iterator[Problem]:
    """A URL would become a folder of that name beside the config, with the URL's password in it."""
    for path, folder in (("run.dir", run.dir), ("data.cache_dir", data.cache_dir)):
        if re.match(r"\w[\w+.-]+:/", str(folder)):
            way_out = "name a folder; of the folders of a run, only `checkpoint.dir` may be a URL"
            yield Problem(path, str(folder), "is a URL, but it must be a folder", way_out)


def dropout_is_of_one_pack(model: ModelConfig, train: TrainConfig) -> Iterator[Problem]:
    """What is drawn for a pack may not depend on its micro-batch, which differs with the number of workers."""
    if model.dropout == "as_configured" and packs_or_one(train.packs_per_micro_batch) > 1:
        rule = "`model.dropout: as_configured` draws for each pack by itself"
        yield Problem(
            "train.packs_per_micro_batch", train.packs_per_micro_batch, rule, "set it to 1", ("model.dropout",)
        )


def shared_rows_are_packed(model: ModelConfig, train: TrainConfig) -> Iterator[Problem]:
    """Workers share rows without padding, and draw nothing: what is drawn would depend on how many share a row."""
    if train.sequence_parallel == 1:
        return
    path, value, way_out = "train.sequence_parallel", train.sequence_parallel, "set it to 1"
    if train.packing == "one_example":
        rule = "workers can only share rows of packed examples, but train.packing is one_example"
        yield Problem(path, value, rule, f"{way_out}, or set train.packing to packed", ("train.packing",))
    if model.dropout == "as_configured":
        rule = "what `model.dropout: as_configured` draws would depend on how many workers share a row"
        yield Problem(path, value, rule, f"{way_out}, or set model.dropout to none", ("model.dropout",))


def the_plain_engine_offloads_nothing(train: TrainConfig, deepspeed: DeepSpeedConfig) -> Iterator[Problem]:
    """Only ZeRO-3 keeps states in host memory."""
    for name in ("offload_optimizer", "offload_parameters"):
        if train.engine == "plain" and getattr(deepspeed, name) != "none":
            rule = f"the plain engine keeps everything on its device, but deepspeed.{name} is cpu"
            yield Problem("train.engine", "plain", rule, "set auto, or remove the offload", (f"deepspeed.{name}",))


def extra_settings_change_no_number(deepspeed: DeepSpeedConfig) -> Iterator[Problem]:
    """Settings that go straight to DeepSpeed may change its speed, but no result."""
    for path, value, reason, way_out in refused(deepspeed.extra):
        yield Problem(f"deepspeed.extra.{path}", value, reason, way_out)


def scores_are_known(evaluate: EvaluateConfig) -> Iterator[Problem]:
    """A score is one of the program's, with its settings, or a function of the user's."""
    named = {task: asked.score for task, asked in evaluate.tasks.items() if asked.score is not None}
    if not named:
        return
    from sft.scoring.registry import read_score  # noqa: PLC0415  (a third of what `sft plan` would import for nothing)

    for task, score in named.items():
        try:
            read_score(score)
        except UserError as error:
            rule, _, way_out = str(error).removeprefix("score: ").partition("\n")
            yield Problem(f"evaluate.tasks.{task}.score", score, rule, way_out.strip() or "see docs/SCORES.md")


def the_best_is_one_of_several(checkpoint: CheckpointConfig, evaluate: EvaluateConfig) -> Iterator[Problem]:
    """Without evaluations within a stage its end is the only model that is known."""
    if checkpoint.best is not None and evaluate.every_steps is None and evaluate.every_epochs is None:
        rule = "only the end of a stage is evaluated, so there is nothing to choose from"
        about = ("evaluate.every_steps", "evaluate.every_epochs")
        yield Problem("checkpoint.best", checkpoint.best.score, rule, "give evaluate.every_steps, too", about)


def what_is_retained_is_named(data: DataConfig, evaluate: EvaluateConfig) -> Iterator[Problem]:
    """Something may not be forgotten, and its sources are those of the data."""
    retain = evaluate.retain
    if retain is None:
        return
    if not retain.sources and not retain.tasks:
        rule = "names neither sources nor tasks, so nothing would be compared"
        yield Problem("evaluate.retain", "nothing", rule, "name some, such as {tasks: [maths]}")
    if not evaluate.before_training:
        rule = "what may not be forgotten is compared with the model before training (evaluate.retain)"
        about = ("evaluate.retain",)
        yield Problem("evaluate.before_training", "false", rule, "leave it true, or give no evaluate.retain", about)
    names = [source.name for source in data.sources]
    for name in retain.sources:
        if name not in names:
            way_out = f"name one of {', '.join(names)}"
            yield Problem("evaluate.retain.sources", name, "is not the name of a source", way_out, ("data.sources",))


RULES: tuple[tuple[Callable[..., Iterator[Problem]], tuple[str, ...]], ...] = (
    (stage_names_are_unique, ("stages",)),
    (source_names_are_unique, ("data",)),
    (one_budget, ("stages",)),
    (one_warmup, ("stages",)),
    (epochs_are_those_of_the_budget, ("stages", "checkpoint", "evaluate")),
    (rates_have_their_numbers, ("stages",)),
    (settings_are_of_the_optimizer, ("stages",)),
    (replay_is_of_earlier_stages, ("stages", "from")),
    (examples_fit_a_pack, ("stages", "data", "train")),
    (held_out_tasks_are_not_trained, ("stages", "data")),
    (held_out_sources_are_known, ("data",)),
    (a_task_is_in_one_cluster, ("data",)),
    (task_tag_names_the_task, ("data",)),
    (staging_dir_is_absolute, ("data",)),
    (csv_characters_are_two, ("data",)),
    (only_constructed_sources_are_approved, ("data",)),
    (homes_are_known, _WITH_PATHS),
    (urls_hold_no_variables, ("data", "checkpoint")),
    (models_are_no_urls, ("model",)),
    (start_is_the_model, ("model", "from")),
    (folders_are_no_urls, ("run", "data")),
    (dropout_is_of_one_pack, ("model", "train")),
    (shared_rows_are_packed, ("model", "train")),
    (the_plain_engine_offloads_nothing, ("train", "deepspeed")),
    (extra_settings_change_no_number, ("deepspeed",)),
    (scores_are_known, ("evaluate",)),
    (the_best_is_one_of_several, ("checkpoint", "evaluate")),
    (what_is_retained_is_named, ("data", "evaluate")),
)
"""Each rule with the sections that it reads, as arguments in this order."""
