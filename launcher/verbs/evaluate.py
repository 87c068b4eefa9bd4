"""`sft evaluate`: measures models of a run, and others, on its held-out prompts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.endpoint_options import add_endpoint_arguments, endpoint_of
from launcher.vllm_options import add_vllm_arguments, vllm_of
from sft.config_arguments import add_override_arguments

if TYPE_CHECKING:
    from launcher.pair_tables import PairJudge
    from sft.harness.tasks import HarnessTasks

SUMMARY = "measure models on held-out prompts: losses, and answers that are scored"
EXAMPLES = """\
sft evaluate runs/quickstart evaluate.answers_per_task=50
sft evaluate runs/my evaluate.shots=[0,3] --model base --model broad
sft evaluate my.yaml --model /models/other-7b
sft evaluate runs/my --model base --endpoint http://127.0.0.1:8000/v1
sft evaluate runs/my --vllm "/path/to/vllm/bin/vllm serve --tensor-parallel-size 4"
sft evaluate runs/my --harness arc_easy,hellaswag --harness-limit 200
sft evaluate runs/my --harness ./my_tasks --model base --model broad"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the models, and settings."""
    text = "the folder of a run, or a config"
    parser.add_argument("config", type=_config_of, metavar="RUN_DIR|CONFIG", help=text)
    add_override_arguments(parser)
    text = "base, a stage of the run, or a folder; may be given several times. Default: base and the last stage"
    parser.add_argument("--model", action="append", default=[], dest="models", metavar="NAME", help=text)
    add_vllm_arguments(parser)
    text = (
        "ask the models tasks of lm-evaluation-harness instead: names, groups, patterns or folders, with commas between"
    )
    parser.add_argument("--harness", metavar="TASKS", help=text)
    text = "a folder with task files (.yaml) of your own, whose names --harness may use"
    parser.add_argument("--harness-include", metavar="DIR", help=text)
    text = "the most examples of each of these tasks"
    parser.add_argument("--harness-limit", type=int, metavar="N", help=text)
    text = "how many examples stand in front of each prompt. Default: as each task says"
    parser.add_argument("--harness-shots", type=int, metavar="N", help=text)
    text = "a served model, too: the address of a server of OpenAI's chat completions, such as http://127.0.0.1:8000/v1"
    add_endpoint_arguments(parser, text)
    text = "have a judging model compare the answers of the others with those of this one, in both orders"
    parser.add_argument("--judge-against", metavar="NAME", help=text)
    text = "the judge: the address of its server, its name there, the variable that holds the key, and what counts"
    parser.add_argument("--judge-endpoint", metavar="URL", help=text)
    parser.add_argument("--judge-model", metavar="NAME", default="")
    parser.add_argument("--judge-key-env", metavar="NAME", default="")
    parser.add_argument("--judge-rubric", metavar="TEXT|FILE", default="")


def run(options: argparse.Namespace) -> int:
    """Measure the models one after the other, and show them side by side."""
    from launcher.console import build_console
    from launcher.evaluation import evaluate_models
    from sft.absolute_paths import absolute_paths
    from sft.hub_answers import check_hub_answers

    job = options.job.model_copy(update={"sft": absolute_paths(options.job.sft)})
    if (tasks := _harness_tasks(options)) is not None:
        from launcher.harness_evaluation import evaluate_with_harness

        check_hub_answers(job.sft, ["model"])
        return evaluate_with_harness(job, options.models, tasks, build_console())
    vllm, endpoint = vllm_of(options), endpoint_of(options)
    check_hub_answers(job.sft)
    return evaluate_models(job, options.models, endpoint, build_console(), _judge_of(options), vllm)


def _harness_tasks(options: argparse.Namespace) -> "HarnessTasks | None":
    from sft.errors import UserError
    from sft.harness.tasks import read_tasks

    more = [options.harness_include, options.harness_limit, options.harness_shots]
    if options.harness is None:
        if any(given is not None for given in more):
            raise UserError("--harness-include, --harness-limit and --harness-shots need --harness TASKS.")
        return None
    if options.endpoint or options.vllm or options.judge_against or options.judge_endpoint:
        raise UserError("--harness asks whole models alone: give it without --endpoint, --vllm and --judge-….")
    return read_tasks(options.harness, *more)


def _judge_of(options: argparse.Namespace) -> "PairJudge | None":
    from launcher.pair_tables import PairJudge
    from sft.endpoint.endpoint import Endpoint
    from sft.errors import UserError
    from sft.scoring.judge_prompt import DEFAULT_RUBRIC

    if not options.judge_against and not options.judge_endpoint:
        return None
    if not options.judge_against or not options.judge_endpoint:
        raise UserError("Two models are compared with both --judge-against NAME and --judge-endpoint URL.")
    endpoint = Endpoint(options.judge_endpoint, options.judge_model, options.judge_key_env)
    return PairJudge(endpoint, options.judge_against, options.judge_rubric or DEFAULT_RUBRIC)


def _config_of(text: str) -> Path:
    """The file of the config; of a run's folder, that in it."""
    path = Path(text)
    return path / "config.yaml" if path.is_dir() else path
