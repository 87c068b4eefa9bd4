"""`sft review`: people approve the records of a file, in a browser on this machine."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sft.approval.record_set import Place
    from sft.review.session import ReviewSession, View
    from sft.review.trained_form import TrainedForm

SUMMARY = "approve records in a browser on this machine: accept, edit, reject, by keyboard"
EXAMPLES = """\
sft review data/constructed                        # prints the address of the page
sft review data/constructed --sample 0.05          # a random sample stands for the rest below 5 % errors
sft review data/constructed --status --sample 0.05
sft review data/constructed --approved approved.jsonl   # what may be trained
sft review data/constructed --export label-studio tasks.json
sft review data/constructed --import label-studio done.json"""

PORT = 8477


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data, who reviews it and how."""
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder of `sft construct`, or a file of JSON lines")
    parser.add_argument("--reviewer", metavar="NAME", help="who decides; default: your name on this machine")
    text = "show a random sample, until it is sure that a smaller share of all than this is wrong"
    parser.add_argument("--sample", type=_share, metavar="BOUND", help=text)
    text = "share of the records on which two reviewers decide, to measure their agreement; default: 0"
    parser.add_argument("--agreement-share", type=_share, default=0.0, metavar="X", help=text)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the order; the same for all; default: 0"
    )
    text = f"port of the page; 0: any that is free; default: {PORT}"
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=text)
    text = "read the records as this config does, and show each also as its chat template renders it"
    parser.add_argument("--config", dest="template_of", type=Path, metavar="CONFIG", help=text)
    form: dict[str, Any] = {"nargs": 2, "metavar": ("TOOL", "FILE")}
    parser.add_argument("--export", **form, help="write the records for TOOL: label-studio or argilla")
    parser.add_argument("--import", dest="taken", **form, help="take the decisions that people made in TOOL")
    text = "write the approved records, after their edits, to train on: with --sample BOUND by that rule"
    parser.add_argument("--approved", type=Path, metavar="FILE", help=text)
    parser.add_argument("--status", action="store_true", help="show how far the reviewers are, and serve no page")


def run(options: argparse.Namespace) -> int:
    """Show the state, or serve the page until it is interrupted."""
    import getpass
    import sys

    from sft.paused_collector import paused_collector

    with paused_collector():
        from launcher.console import build_console
        from launcher.exit_codes import DONE
        from launcher.review_status import show_status
        from sft.approval.record_set import find_place
        from sft.errors import UserError
        from sft.printable import fit_to_print
        from sft.review.server import serve
        from sft.review.session import ReviewSession, Setting

    place = find_place(options.data)
    setting = Setting(options.seed, options.sample, options.agreement_share)
    exchanges = bool(options.export or options.taken or options.approved)
    form, view = _trained(options.template_of, place, with_view=not (exchanges or options.status))
    if exchanges:
        return _exchange(options, ReviewSession(place, "import", setting, form=form))
    if options.status:
        show_status(place, setting, build_console())
        return DONE
    try:
        reviewer = (options.reviewer or getpass.getuser()).strip()
    except (OSError, KeyError):
        reviewer = ""
    if not reviewer:
        raise UserError("Who reviews? Give --reviewer NAME.")
    session = ReviewSession(place, reviewer, setting, view, form=form, trust=True)

    def say(address: str) -> None:
        sys.stdout.write(f"{fit_to_print(str(place.records))} as {fit_to_print(reviewer)}: {address}\n")
        sys.stdout.write(f"Decisions: {fit_to_print(str(place.decisions))}. Ctrl-C ends the page.\n")
        sys.stdout.flush()

    try:
        serve(session, options.port, say)
    except KeyboardInterrupt:
        sys.stderr.write("The page has ended. Every decision that it said to be saved is kept.\n")
    _update_card(place)
    return DONE


def _update_card(place: "Place") -> None:
    """What people have decided is on the data card of a folder that `sft construct` has made."""
    # After the page: it opens sooner without these imports.
    import sys

    from sft.construction.card import update_card

    update_card(place.records.parent, lambda name: sys.stderr.write(f"Bringing {name} up to date.\n"))


def _trained(config: Path | None, place: "Place", with_view: bool) -> "tuple[TrainedForm | None, View]":
    """How a config reads the records, and how its template renders them."""
    if config is None:
        return None, None
    import sys

    from sft.absolute_paths import absolute_paths
    from sft.job_config import load_job
    from sft.printable import fit_message
    from sft.review.template_view import TemplateView
    from sft.review.trained_form import TrainedForm

    sft = absolute_paths(load_job(config, []).sft)
    form = TrainedForm(place.records, sft.data)
    if not form.is_configured:
        said = f"No source of {config} reads {place.records}: its format is found from its columns."
        sys.stderr.write(fit_message(said) + "\n")
    return form, TemplateView(sft.data, sft.model).parts if with_view else None


def _exchange(options: argparse.Namespace, session: "ReviewSession") -> int:
    import sys

    from launcher.console import say_error
    from launcher.exit_codes import DONE, FAILED
    from sft.errors import UserError
    from sft.printable import counted, fit_message
    from sft.review.exchange import FORMS, export_records, import_decisions, write_approved

    for tool, _ in filter(None, (options.export, options.taken)):
        if tool not in FORMS:
            raise UserError(f"There is no tool {tool!r} here, only {' and '.join(FORMS)}.")
    try:
        if options.taken:
            tool, file = options.taken
            outcomes = import_decisions(session, tool, Path(file))
            _update_card(session.place)
            sys.stdout.writelines(
                fit_message(f"{counted(n, 'decision')} {what}") + "\n" for what, n in outcomes.items()
            )
        if options.export:
            tool, file = options.export
            num = export_records(session, tool, Path(file))
            sys.stdout.write(fit_message(f"{counted(num, 'record')} in {file}") + "\n")
        if options.approved:
            num = write_approved(session, options.approved)
            sys.stdout.write(fit_message(f"{counted(num, 'approved record')} in {options.approved}") + "\n")
            if said := session.progress()["sample"]:
                sys.stdout.write(f"Of the sample, {said}\n")
    except OSError as error:
        say_error(f"It could not be written: {error}.")
        return FAILED
    return DONE


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value
