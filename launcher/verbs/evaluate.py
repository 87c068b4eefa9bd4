"""`sft evaluate`: measures models of a run, and others, on its held-out prompts."""

import argparse
from pathlib import Path

SUMMARY = "measure models on held-out prompts: losses, and answers that are scored"
EXAMPLES = """\
sft evaluate runs/quickstart evaluate.answers_per_task=50
sft evaluate runs/my evaluate.shots=[0,3] --model base --model broad
sft evaluate my.yaml --model /models/other-7b"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the models, and settings."""
    text = "the folder of a run, or a config"
    parser.add_argument("config", type=_config_of, metavar="RUN_DIR|CONFIG", help=text)
    text = "section.field=value, such as evaluate.answers_per_task=50"
    parser.add_argument("overrides", nargs="*", default=[], metavar="FIELD=VALUE", help=text)
    text = "base, a stage of the run, or a folder; may be given several times. Default: base and the last stage"
    parser.add_argument("--model", action="append", default=[], dest="models", metavar="NAME", help=text)


def run(options: argparse.Namespace) -> int:
    """Measure the models one after the other, and show them side by side."""
    from launcher.console import build_console
    from launcher.evaluation import evaluate_models
    from sft.absolute_paths import absolute_paths
    from sft.hub_answers import check_hub_answers
    from sft.training.process import quiet_third_parties

    quiet_third_parties()
    job = options.job.model_copy(update={"sft": absolute_paths(options.job.sft)})
    check_hub_answers(job.sft)
    return evaluate_models(job, options.models, build_console())


def _config_of(text: str) -> Path:
    """The file of the config; of a run's folder, that in it."""
    path = Path(text)
    return path / "config.yaml" if path.is_dir() else path
