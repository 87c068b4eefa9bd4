"""`sft export`: the model of a checkpoint as a Hugging Face folder, and whether it does elsewhere what it does here."""

import argparse
from pathlib import Path

from launcher.endpoint_options import add_endpoint_arguments, endpoint_of

SUMMARY = "write the model of any kept checkpoint as a Hugging Face folder, without GPUs; --check: compare it in use"
EXAMPLES = """\
sft export runs/my
sft export runs/my --stage broad --step 400 --to /models/my-400
sft export runs/my --step best --dtype float32
sft export runs/my --check
sft export runs/my/stages/0-broad/model --check --endpoint http://127.0.0.1:8000/v1"""

_STEP = "after how many steps of the stage: a number, last, or best (`checkpoint.best`). Default: last"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, which checkpoint, where to, and the check."""
    text = "the folder of a run; with --check also a model that a run has exported"
    parser.add_argument("path", type=Path, metavar="RUN_DIR|MODEL", help=text)
    parser.add_argument("--stage", metavar="NAME", help="which stage. Default: the last one with a checkpoint")
    parser.add_argument("--step", type=_step_of, metavar="N|last|best", help=_STEP)
    text = "the folder to write, which must not exist. Default: RUN_DIR/exports/STAGE-step-N"
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=text)
    text = "of the trained parameters in the files. Default: model.dtype of the run"
    parser.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), help=text)
    text = "compare prompts, weights, log-probabilities and greedy answers in plain transformers with the trained model"
    parser.add_argument("--check", action="store_true", help=text)
    parser.add_argument(
        "--device", metavar="NAME", help="where --check computes: cpu, cuda:0. Default: a GPU, if there is one"
    )
    text = "with --check: ask a server of the folder, too (OpenAI's chat completions, such as vLLM)"
    add_endpoint_arguments(parser, text)


def run(options: argparse.Namespace) -> int:
    """Export, and check if that is asked for."""
    from sft.errors import UserError

    if not options.check and (options.endpoint or options.device):
        raise UserError("--endpoint and --device belong to --check.")
    endpoint = endpoint_of(options)

    from launcher.console import build_console
    from launcher.exporting import Asked, check_folder, export
    from launcher.opened_run import open_run
    from sft.run_claim import is_claimed
    from sft.run_folder import RunFolder

    console = build_console()
    is_model = not is_claimed(RunFolder(options.path)) and (options.path / "config.json").is_file()
    if not is_model:
        asked = Asked(options.stage, options.step or "last", options.to, options.dtype)
        return export(open_run(options.path), asked, console, options.check, options.device, endpoint)
    if not options.check:
        raise UserError(f"{options.path} is a model already. With --check it is compared with the run that it is of.")
    if given := [name for name in ("stage", "step", "to", "dtype") if getattr(options, name) is not None]:
        raise UserError(f"--{given[0]}: {options.path} is a model already, and is only checked.")
    return check_folder(options.path, console, options.device, endpoint)


def _step_of(text: str) -> int | str:
    if text in ("last", "best"):
        return text
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of steps nor last or best")
    return int(text)
