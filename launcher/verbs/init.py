"""`sft init`: writes a config for data and a model, with the reason behind each value."""

import argparse
import re
from importlib.util import find_spec
from pathlib import Path
from shlex import split
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.new_config import Questions
    from sft.config import ModelConfig, SourceConfig
    from sft.first_config.recommendation import Machine
    from sft.first_config.source_survey import Survey

SUMMARY = "write a config for your data and a model, with the reason behind each value"
EXAMPLES = """\
sft init                                      # asks for what it needs
sft init data/dolly.jsonl --model models/SmolLM2-135M --gpus 1 --gpu rtx4090 -o dolly.yaml
sft init chats.jsonl maths.parquet --model Qwen/Qwen2.5-0.5B --gpus 8 --yes
sft init qa.csv --model models/m --format prompt_completion --columns prompt=text,completion=code --yes"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that answer the questions."""
    parser.add_argument("data", nargs="*", metavar="DATA", help="files, folders, URLs, or ids of data sets on the Hub")
    parser.add_argument("--model", metavar="MODEL", help="a folder, or the id of a model on the Hub")
    parser.add_argument("--tokenizer", metavar="PATH", help="the tokenizer, if not the model's own")
    parser.add_argument("--name", metavar="NAME", help="the name of the run; default: that of the first data file")
    parser.add_argument("--format", metavar="NAME", help="the format of the data, if the columns do not tell")
    text = "the format's names and the columns that hold them, such as prompt=question,completion=answer"
    parser.add_argument("--columns", metavar="NAME=COLUMN,…", help=text)
    parser.add_argument("--task", metavar="COLUMN", help="the column that names the task of a record; `none`: one task")
    parser.add_argument("--gpus", type=int, metavar="N", help="how many GPUs, one for each worker; 0: train on CPUs")
    parser.add_argument(
        "--gpu", metavar="KIND", help="the kind of GPU, such as a100-80gb or h100-80gb, to work out what fits"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write; default: NAME.yaml")
    parser.add_argument("--yes", action="store_true", help="ask nothing: detect what is not given, or take its default")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.add_argument("--offline", action="store_true", help="do not fetch the model's config.json from the Hub")


def run(options: argparse.Namespace) -> int:
    """Ask, examine the data and the model, recommend, write."""
    from launcher.console import build_console
    from launcher.exit_codes import DONE
    from launcher.new_config import Questions, check_is_new, write_config
    from sft.data.reading.sources import read_records
    from sft.errors import UserError
    from sft.first_config.commented import write_commented
    from sft.first_config.model_survey import survey_model
    from sft.first_config.recommendation import Wanted, recommend
    from sft.first_config.source_names import unique_names
    from sft.sizing.hub_config import fetch_config

    console = build_console()
    questions = Questions(console, options.yes)
    data = options.data or split(questions.ask("Data (files, folders, or ids on the Hub)"))
    model = options.model or questions.ask("Model (a folder, or an id on the Hub)")
    needed = [what for what, given in (("DATA", data), ("--model MODEL", model)) if not given]
    if needed:
        raise UserError(f"sft init needs {' and '.join(needed)}: give them, or call it on a terminal, where it asks")
    model = _as_here(model)
    if model.startswith(("/", ".")) and not Path(model).exists():
        raise UserError(f"--model: there is no {model}: name a folder, or the id of a model on the Hub")
    data = [_as_here(path) for path in data]
    names = unique_names(data)
    name = options.name or questions.ask("Name of the run", names[0])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"--name: {name!r} may hold letters, digits, dots, dashes and underscores only")
    path = options.output or Path(f"{name}.yaml")
    check_is_new(path, options.force, questions)
    sources = [_source(*named, options.format or "auto", options.columns) for named in zip(names, data, strict=True)]
    for source in sources:
        next(iter(read_records(source)))  # raises if it cannot be read: that has nothing to do with its format
    if not options.offline and (fetched := fetch_config(model)):
        console.print(fetched, soft_wrap=True)
    facts = survey_model(model)
    for note in facts.notes:
        console.print(f"not known: {note}", soft_wrap=True)
    tokenizer = _tokenizer(model, options, console, is_here=facts.family is not None)
    surveys = [_look(source, tokenizer, options, questions, console) for source in sources]
    machine = _machine(options, questions)
    if options.task not in (None, "none", *(column for survey in surveys for column in survey.columns)):
        there = "; ".join(f"{survey.source.name}: {', '.join(survey.columns)}" for survey in surveys)
        raise UserError(f"--task: no record has a column {options.task!r}. The columns there: {there}")
    tasks = {survey.source.name: _task(survey, options.task, questions) for survey in surveys}
    has_scores = find_spec("rouge_score") is not None
    content = recommend(Wanted(name, model, options.tokenizer, tasks, has_scores), surveys, facts, machine)
    header = [
        "Made by `sft init` from the beginning of the data and the model's config.json: a start, no tuned optimum.",
        f"sft plan {path}: what it needs. sft prepare {path}: the data. sft inspect {path}: what is learned. "
        f"sft train {path}: all of it.",
    ]
    write_config(path, write_commented(content, header))
    console.print(f"{path} is written. Read it, then: sft plan {path}", soft_wrap=True)
    return DONE


def _as_here(path: str) -> str:
    """With `~` and variables as they are here: no shell has expanded an answer to a question."""
    from sft.absolute_paths import local_path

    return str(local_path(path)) if "://" not in path and path.startswith(("~", "$")) else path


def _tokenizer(model: str, options: argparse.Namespace, console: Any, is_here: bool) -> "ModelConfig | None":
    """The model's section if its tokenizer can be had; examples are measured with it.

    Where the model's config.json could not, the Hub is not asked again, which takes most of a minute.
    """
    from sft.config import ModelConfig
    from sft.data.rendering.chat_template import load_tokenizer
    from sft.errors import UserError

    section = ModelConfig(path=model, tokenizer=options.tokenizer)
    may_ask = not options.offline and (is_here or options.tokenizer)
    if not may_ask and not Path(options.tokenizer or model).expanduser().exists():
        console.print("not known: how long the examples are, as there is no tokenizer on this machine")
        return None
    try:
        load_tokenizer(section)
    except UserError as error:
        console.print(f"not known: how long the examples are, as there is no tokenizer: {error}", soft_wrap=True)
        return None
    return section


def _look(
    source: "SourceConfig",
    model: "ModelConfig | None",
    options: argparse.Namespace,
    questions: "Questions",
    console: Any,
) -> "Survey":
    """Look at a source; if its format cannot be detected, ask for it."""
    from sft.data.formats.detection import describe_source
    from sft.errors import UserError
    from sft.first_config.source_survey import survey_source

    try:
        survey = survey_source(source, model)
    except UserError as error:
        if options.format or not questions.are_asked:
            raise UserError(f"{error}\nFor `sft init`: --format NAME --columns NAME=COLUMN,…") from error
        console.print(str(error), soft_wrap=True)
        form = questions.ask("Format")
        columns = questions.ask("Columns, such as prompt=question,completion=answer; empty: as the format names them")
        survey = survey_source(_source(source.name, source.path, form, columns), model)
    lengths = f", {survey.mean_length:.0f} tokens on average" if survey.lengths else ""
    bad = f", {len(survey.reasons)} of {survey.num_looked:,} cannot be used" if survey.reasons else ""
    console.print(
        f"{source.name}: about {survey.num_records:,} records, {describe_source(survey.source)}{lengths}{bad}",
        soft_wrap=True,
    )
    return survey


def _source(name: str, path: str, form: str, columns: str | None) -> "SourceConfig":
    from pydantic import TypeAdapter

    from sft.config import SourceConfig
    from sft.config_file import ConfigError, check_section

    pairs = [pair.partition("=") for pair in (columns or "").split(",") if pair.strip()]
    renamed = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    given = {"name": name, "path": path, "format": form, "columns": renamed}
    problems, source = check_section(TypeAdapter(SourceConfig), given, name)
    if problems:
        raise ConfigError("sft init", problems)
    assert isinstance(source, SourceConfig)
    return source


def _task(survey: "Survey", given: str | None, questions: "Questions") -> str | None:
    """The column that names the task."""
    from sft.first_config.source_survey import likely_task

    if given is not None:
        return given if given in survey.columns else None
    likely, columns = likely_task(survey), list(survey.task_columns)
    if not columns:
        return None
    question = f"{survey.source.name}: which column names the task of a record?"
    answer = questions.ask(question, likely or "none", [*columns, "none"])
    return None if answer == "none" else answer


def _machine(options: argparse.Namespace, questions: "Questions") -> "Machine":
    from sft.errors import UserError
    from sft.first_config.recommendation import Machine
    from sft.sizing.gpus import GPUS

    text = str(options.gpus) if options.gpus is not None else questions.ask("GPUs of the run (0: CPUs)", "0")
    if not text.isdecimal():
        raise UserError(f"--gpus: {text} is not a number of GPUs; give 0 or more")
    kind = options.gpu or (questions.ask("Kind of GPU", "other", [*GPUS, "other"]) if int(text) else "other")
    if kind not in (*GPUS, "other"):
        raise UserError(f"--gpu: {kind} is not known here. There are {', '.join(GPUS)}; leave it out for another")
    return Machine(int(text), kind if kind in GPUS else None)
