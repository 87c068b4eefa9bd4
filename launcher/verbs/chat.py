"""`sft chat`: talks to the models of a run side by side, or to one model."""

import argparse

from launcher.endpoint_options import add_endpoint_arguments, endpoint_of

SUMMARY = "talk to models in the terminal: the base and the tuned one side by side"
EXAMPLES = """\
sft chat runs/my
sft chat runs/my --model base --model broad --model /models/other-7b --tag summarization
sft chat runs/my/stages/0-broad/model --temperature 0.7 --seed 1
sft chat runs/my --model broad --endpoint http://127.0.0.1:8000/v1
sft chat Qwen/Qwen2.5-0.5B-Instruct < questions.txt      # a line each"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is talked to, and how it replies."""
    text = "the folder of a run, a config, the folder of a model, or the id of a model on the Hub"
    parser.add_argument("target", metavar="RUN_DIR|CONFIG|MODEL", help=text)
    text = "section.field=value, such as model.dtype=float32 or data.task_tag.text='Task: {task}'"
    parser.add_argument("overrides", nargs="*", default=[], metavar="FIELD=VALUE", help=text)
    text = "base, a stage of the run, or a folder; may be given several times. Default: base and the last stage"
    parser.add_argument("--model", action="append", default=[], dest="models", metavar="NAME", help=text)
    parser.add_argument("--system", metavar="TEXT", default="", help="a system text. Default: that of the template")
    text = "the task that the task tag names (data.task_tag). Default: as trained where the run has one task, else none"
    parser.add_argument("--tag", metavar="NAME", help=text)
    text = "0, the default, takes the most probable token each time; a higher value draws (evaluate.temperature)"
    parser.add_argument("--temperature", metavar="NUMBER", help=text)
    text = "with a temperature: draw from the most probable tokens with this probability (evaluate.top_p)"
    parser.add_argument("--top-p", metavar="NUMBER", help=text)
    parser.add_argument("--seed", metavar="NUMBER", help="what is drawn follows from it (run.seed)")
    text = "where a reply is cut if the model does not stop (evaluate.max_new_tokens). Default: 512"
    parser.add_argument("--max-new-tokens", metavar="NUMBER", help=text)
    text = "a served model, too: the address of a server of OpenAI's chat completions, such as http://127.0.0.1:8000/v1"
    add_endpoint_arguments(parser, text)


def run(options: argparse.Namespace) -> int:
    """Load the models, and talk."""

    # Before anything imports what it quiets: that looks once.
    from launcher.chat.keyboard import GivenUpError, Keyboard
    from launcher.chat.target import open_target
    from launcher.console import build_console
    from launcher.exit_codes import INTERRUPTED
    from sft.paused_collector import paused_collector

    target = open_target(options.target, [*options.overrides, *_settings(options)])
    endpoint = endpoint_of(options)
    with paused_collector():
        from launcher.chat.opening import open_chat
        from launcher.chat.session import Session
        from sft.chat.prompts import Setting

    console, keyboard = build_console(), Keyboard()
    setting = Setting(options.system, " ".join(options.tag.split()) if options.tag else None)
    opened = open_chat(target, options.models, endpoint, setting, console)
    try:
        with keyboard.opened():
            return Session(opened, keyboard, console).run()
    except GivenUpError:
        return INTERRUPTED


def _settings(options: argparse.Namespace) -> list[str]:
    """The options that are fields of the config, as overrides."""
    given = {
        "evaluate.temperature": options.temperature,
        "evaluate.top_p": options.top_p,
        "run.seed": options.seed,
        "evaluate.max_new_tokens": options.max_new_tokens,
    }
    return [f"{field}={value}" for field, value in given.items() if value is not None]
