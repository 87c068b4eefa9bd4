"""`sft convert`: makes a config of ours from one of Axolotl, LLaMA-Factory or TRL."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUMMARY = "make a config from one of Axolotl, LLaMA-Factory or TRL, and list what has no equal"
EXAMPLES = """\
sft convert axolotl.yaml -o my.yaml --gpus 8
sft convert llama3_full_sft.yaml --from llama_factory > my.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and options for what such a file does not say."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a config of the other system, as its command line takes it"
    )
    text = "the system of FILE, if its keys do not tell: axolotl, llama_factory, trl"
    parser.add_argument("--from", dest="system", choices=("axolotl", "llama_factory", "trl"), help=text)
    parser.add_argument("--gpus", type=int, metavar="N", help="how many GPUs it ran on")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="the file to write; default: print the config")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")


def run(options: argparse.Namespace) -> int:
    """Convert, and list what could not be converted."""
    from launcher.console import build_console, say_error
    from launcher.exit_codes import DONE
    from launcher.new_config import Questions, check_is_new, write_config
    from sft.config_file import read_yaml
    from sft.errors import UserError
    from sft.first_config.commented import write_commented
    from sft.first_config.conversion import choose_system, convert
    from sft.foreign.keys import SYSTEMS

    if options.gpus is not None and options.gpus < 1:
        raise UserError(f"--gpus: {options.gpus} is less than 1")
    if options.output:
        check_is_new(options.output, options.force, Questions(build_console(), without=False))
    theirs = read_yaml(options.file).content
    system = options.system or choose_system(theirs)
    converted = convert(theirs, system, options.gpus, _mean_tokens)
    header = [f"Made by `sft convert` from {options.file}, a config of {SYSTEMS[system]}."]
    parts = [("Without an equal here:", converted.missing), ("With another meaning here:", converted.differing)]
    for title, lines in parts:
        header += [title, *(f"- {line}" for line in lines)] if lines else []
    text = write_commented(converted.content, header)
    if not options.output:
        sys.stdout.write(text)
    for title, lines in parts:
        if lines:
            say_error("\n  ".join([title, *lines]))
    if options.output:
        write_config(options.output, text)
        say_error(f"{options.output} is written. Read it, then: sft plan {options.output}")
    return DONE


def _mean_tokens(content: Mapping[str, Any]) -> float | None:
    """The mean length of the training examples, in tokens; None if data or tokenizer are not on this machine."""
    from sft.config import ModelConfig, SourceConfig

    model, data = ModelConfig.model_validate(content["model"]), content["data"]
    held_out = data.get("holdout", {}).get("sources", [])
    sources = [SourceConfig.model_validate(one) for one in data["sources"] if one["name"] not in held_out]
    paths = [*(source.path for source in sources), model.tokenizer or model.path]
    if not all(Path(path).expanduser().exists() for path in paths):
        return None
    from sft.first_config.source_survey import mean_example_tokens

    return mean_example_tokens(sources, model)
