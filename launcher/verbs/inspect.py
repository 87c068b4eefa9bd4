"""`sft inspect`: shows what is learned of a job's data, or proves it."""

import argparse
from pathlib import Path

from sft.config_arguments import add_config_arguments, at_least

SUMMARY = "show in colours what the model learns of each example, or prove it for every row"
EXAMPLES = """\
sft inspect my.yaml --num 10 --task summarize
sft inspect my.yaml --html examples.html      # a page with 200 of them
sft inspect my.yaml --check                   # every row; exit code 1 if an invariant is broken"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    count = at_least(1)
    parser.add_argument("--num", type=count, metavar="N", help="examples shown: 3 on the console, 200 on a page")
    parser.add_argument("--task", metavar="NAME", help="only examples of this task")
    parser.add_argument("--source", metavar="NAME", help="only examples of this source")
    parser.add_argument("--min-tokens", type=count, metavar="N", help="only examples at least this long")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="only examples at most this long")
    parser.add_argument("--row", type=at_least(0), metavar="ID", help="this row of the store")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the random choice; default: run.seed")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained page instead")
    parser.add_argument("--check", action="store_true", help="check every row; exit code 1 if an invariant is broken")


def run(options: argparse.Namespace) -> int:
    """Show, write or check."""
    from launcher import inspection
    from launcher.console import build_console
    from launcher.exit_codes import DONE, FAILED
    from sft.absolute_paths import absolute_paths
    from sft.errors import UserError
    from sft.hub_answers import check_hub_answers
    from sft.inspection.selection import Wanted

    config, console = absolute_paths(options.job.sft), build_console()
    wanted = Wanted(options.task, options.source, options.min_tokens, options.max_tokens, options.row)
    if options.check and wanted != Wanted():
        raise UserError(f"--check looks at every row of the store; leave out {wanted.as_text()}.")
    check_hub_answers(config)
    seed = config.run.seed if options.seed is None else options.seed
    if options.html:
        inspection.write_page(config, wanted, options.num or inspection.NUM_ON_PAGE, seed, options.html, console)
    if options.check:
        return DONE if inspection.check(config, console) else FAILED
    if not options.html:
        inspection.show(config, wanted, options.num or inspection.NUM_ON_CONSOLE, seed, console)
    return DONE
