"""`sft score`: how hard each example of a job's data is for its model, by the losses of its answers."""

import argparse
from pathlib import Path

from sft.config_arguments import add_config_arguments, at_least

SUMMARY = "measure how hard each example is for a model: its loss, and how much the prompt helps (IFD)"
EXAMPLES = """\
sft score my.yaml --num 2000                        # a fair sample; the same command with more goes on
sft score my.yaml --model base --model broad        # what a stage has changed, by task
sft score my.yaml --out losses.jsonl                # a line for each example"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    text = "base, a finished stage of the run, or a folder; may be given several times. Default: base"
    parser.add_argument("--model", action="append", default=[], dest="models", metavar="NAME", help=text)
    text = "measure until N examples are measured, chosen at random by run.seed. Default: all"
    parser.add_argument("--num", type=at_least(1), metavar="N", help=text)
    text = "write what is known of each measured example, a JSON line each"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)


def run(options: argparse.Namespace) -> int:
    """Measure what is not measured yet, and show it by task."""
    from launcher.console import build_console
    from launcher.difficulty import score
    from sft.absolute_paths import absolute_paths
    from sft.hub_answers import check_hub_answers

    job = options.job.model_copy(update={"sft": absolute_paths(options.job.sft)})
    check_hub_answers(job.sft)
    return score(job, options.models, options.num, options.out, build_console())
