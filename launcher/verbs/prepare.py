"""`sft prepare`: makes a job's token store and plans, and shows the result."""

import argparse

from sft.config_arguments import add_config_arguments

SUMMARY = "tokenize and mix the data; done once, then found by its content"
EXAMPLES = """\
sft prepare configs/quickstart.yaml
sft prepare my.yaml data.bad_records=quarantine      # leave out what cannot be used, and count it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of a config."""
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Prepare, unless that is done already."""
    from launcher.console import build_console
    from launcher.exit_codes import DONE
    from sft.absolute_paths import absolute_paths
    from sft.hub_answers import check_hub_answers

    config, console = absolute_paths(options.job.sft), build_console()
    console.print(f"run {config.run.name}, in {config.run.dir}", soft_wrap=True)
    check_hub_answers(config)
    from launcher.held_run import work_in
    from launcher.layout_check import find_layout
    from launcher.preparation import prepare
    from sft.run_folder import RunFolder

    for note in find_layout(config)["notes"]:
        console.print(note, highlight=False, markup=False)

    def work() -> int:
        prepare(config, console)
        return DONE

    return work_in(RunFolder(config.run.dir), work, console, is_training=False)
