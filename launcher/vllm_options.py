"""The options of a verb that has vLLM answer."""

import argparse
import math
from typing import NamedTuple

from sft.errors import UserError
from sft.vllm.command import USUAL, VllmCommand, read_command

_MINUTES = 60.0


class VllmWish(NamedTuple):
    """That vLLM answers, on this machine."""

    command: VllmCommand
    minutes: float
    """How long a server may load."""


def add_vllm_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    text = (
        "the models answer in vLLM, on this machine: the command that starts it, with its options, such as "
        f"'/path/to/vllm/bin/vllm serve --tensor-parallel-size 4'. Default: {USUAL}"
    )
    parser.add_argument("--vllm", metavar="COMMAND", nargs="?", const=USUAL, help=text)
    text = f"how long a model may load there. Default: {_MINUTES:g}"
    parser.add_argument("--vllm-minutes", metavar="N", type=float, help=text)


def vllm_of(options: argparse.Namespace) -> VllmWish | None:
    """What the options ask for.

    Raises:
        UserError: the command is none, or other options contradict.
    """
    minutes = options.vllm_minutes
    if options.vllm is None:
        if minutes is not None:
            raise UserError("--vllm-minutes needs --vllm.")
        return None
    if options.endpoint:
        raise UserError("--vllm starts a server for each model, and --endpoint asks one that runs: give one of them.")
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"--vllm-minutes {minutes:g}: give a number above 0.")
    return VllmWish(read_command(options.vllm), _MINUTES if minutes is None else minutes)
