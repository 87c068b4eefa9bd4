"""The command `sft`: one verb each for what can be done with a config or a run folder.

A verb's modules are imported when it is called, so that `sft plan` starts without torch. A mistake of the user is
one message on stderr and exit code 2, never a traceback.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.console import build_console, fit_for_json, let_streams_take_any_text, say_error
from launcher.verbs import convert, init
from sft.config_arguments import add_config_arguments
from sft.errors import UserError

Verb = Callable[[argparse.Namespace], int]

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130

_EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong config or input, 3 stopped on request."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 failed, 2 wrong config or input, 3 stopped on request."""
    let_streams_take_any_text()
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes no overrides behind an option.
    if any(text.startswith("-") or "=" not in text or "overrides" not in options for text in rest):
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    verb: Verb = options.verb
    try:
        return verb(options)
    except UserError as error:
        say_error(error)
        return WRONG_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from the last checkpoint\n")
        return INTERRUPTED


def _plan(options: argparse.Namespace) -> int:
    from launcher.layout_check import find_layout
    from launcher.plan import forecast_job, layout_note, plan_as_json, plan_job
    from launcher.plan_table import plan_table
    from sft.job_config import load_job
    from sft.sizing.hub_config import fetch_config

    job = load_job(options.config, options.overrides)
    fetched = None if options.offline else fetch_config(job.sft.model.path)
    plan, forecast = plan_job(job), forecast_job(job)
    layout = find_layout(job.sft)
    notes = (*layout["notes"], layout_note(layout, forecast))
    forecast = forecast._replace(findings=(*([fetched] if fetched else []), *forecast.findings, *notes))
    if options.json:
        sys.stdout.write(json.dumps(fit_for_json(plan_as_json(plan, forecast))) + "\n")
    else:
        build_console().print(plan_table(plan, forecast))
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from sft.job_config import load_job

    # Everything that is wrong with the config is said before the slow imports.
    job = load_job(options.config, options.overrides)
    from launcher.held_run import work_in
    from launcher.layout_check import find_layout
    from launcher.preparation import prepare
    from sft.run_folder import RunFolder
    from sft.training.process import quiet_third_parties
    from sft.training.run_record import anchor_paths

    quiet_third_parties()
    config = anchor_paths(job.sft)
    console = build_console()
    for note in find_layout(config)["notes"]:
        console.print(note, highlight=False, markup=False)

    def work() -> int:
        prepare(config, console)
        return 0

    return work_in(RunFolder(config.run.dir), work, console)


def _preflight(options: argparse.Namespace) -> int:
    from sft.job_config import load_job

    # Everything that is wrong with the config is said before the slow imports.
    job = load_job(options.config, options.overrides)
    from launcher.interruption import InterruptedByWish, ended_on_wish
    from launcher.preflight.checks import check
    from launcher.preflight.table import as_json, show
    from sft.training.process import quiet_third_parties
    from sft.training.run_record import anchor_paths

    quiet_third_parties()
    try:
        with ended_on_wish(None):  # it leaves marks in folders, and takes them away
            preflight = check(job._replace(sft=anchor_paths(job.sft)))
    except InterruptedByWish as wish:
        say_error(f"Ended by {wish}.")
        return wish.exit_code
    if options.json:
        sys.stdout.write(json.dumps(fit_for_json(as_json(preflight))) + "\n")
    else:
        show(preflight, build_console())
    return WRONG_INPUT if preflight.errors else 0


def _train(options: argparse.Namespace) -> int:
    from sft.job_config import load_job

    if options.expect_source is not None:
        from launcher.submission.portable_job import check_source

        check_source(options.expect_source)

    # Everything that is wrong with the config is said before the slow imports.
    job = load_job(options.config, options.overrides)
    from sft.training.process import quiet_third_parties

    quiet_third_parties()
    from launcher.driver import train

    return train(job, build_console(), options.until)


def _submit_slurm(options: argparse.Namespace) -> int:
    from launcher.submission.slurm import submit
    from sft.job_config import load_job

    job = load_job(options.config, options.overrides)
    submit(job, str(options.config), options.dry_run, build_console())
    return 0


def _submit_ray(options: argparse.Namespace) -> int:
    from sft.job_config import load_job

    # Everything that is wrong with the config is said before the slow imports.
    job = load_job(options.config, options.overrides)
    from launcher.submission.portable_job import render_config

    config = render_config(job, str(options.config))
    if options.kuberay and options.package is not None:
        raise UserError("--kuberay: the pods run the program in their image; build it from your package instead.")
    if options.kuberay:
        from launcher.plan import plan_job
        from launcher.submission.kuberay import render_manifest

        sys.stdout.write(render_manifest(job, plan_job(job), config, str(options.config)))
        return 0
    from launcher.submission import ray_jobs

    request = ray_jobs.plan_request(job, config, options.package)
    if options.dry_run:
        sys.stdout.write(ray_jobs.describe(request))
        return 0
    return ray_jobs.submit(request, job.sft.run.name, options.address, not options.detach)


def _report(options: argparse.Namespace) -> int:
    from sft.evaluation.report import write_report
    from sft.run_claim import is_claimed
    from sft.run_folder import RunFolder

    run = RunFolder(options.run_dir)
    # Others' files are called so, too, and this writes a file.
    if not is_claimed(run):
        raise UserError(f"{run.path} is not the folder of a run: there is no {run.manifest.name} of a run in it")
    sys.stdout.write(f"{write_report(run)}\n")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from launcher.verification import verify
    from sft.run_folder import RunFolder

    return 0 if verify(RunFolder(options.run_dir), build_console()) else FAILED


def _status(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from launcher import status
    from sft.monitoring.run_status import RunWatcher
    from sft.run_folder import RunFolder

    watcher = RunWatcher(RunFolder(options.run_dir))
    if options.json:
        sys.stdout.write(json.dumps(fit_for_json(asdict(watcher.read()))) + "\n")
    elif options.watch:
        status.watch(watcher, build_console())
    else:
        status.show(watcher, build_console())
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from sft.job_config import load_job

    # Everything that is wrong with the config is said before the slow imports.
    job = load_job(options.config, options.overrides)
    from launcher import inspection
    from sft.inspection.selection import Wanted
    from sft.training.process import quiet_third_parties
    from sft.training.run_record import anchor_paths

    quiet_third_parties()
    config, console = anchor_paths(job.sft), build_console()
    wanted = Wanted(options.task, options.source, options.min_tokens, options.max_tokens, options.row)
    if options.check and wanted != Wanted():
        raise UserError(f"--check looks at every row of the store; leave out {wanted.as_text()}.")
    seed = config.run.seed if options.seed is None else options.seed
    if options.html:
        inspection.write_page(config, wanted, options.num or inspection.NUM_ON_PAGE, seed, options.html, console)
    if options.check:
        return 0 if inspection.check(config, console) else FAILED
    if not options.html:
        inspection.show(config, wanted, options.num or inspection.NUM_ON_CONSOLE, seed, console)
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sft", description="Instruction tuning, from data to model.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for module in (init, convert):
        name = module.__name__.rpartition(".")[2]
        module.add_arguments(_add_verb(verbs, name, module.run, module.SUMMARY))
    for name, verb, text in (
        ("plan", _plan, "what the job will ask for, need and cost; starts nothing, and needs neither torch nor a GPU"),
        ("prepare", _prepare, "tokenize and mix the data; done once, found again by its content"),
        ("inspect", _inspect, "what is learned of the data, coloured; or a proof of it for every row"),
        ("preflight", _preflight, "look at every node of the cluster and say all that is wrong; exit code 2 if so"),
        ("train", _train, "prepare, train every stage, export and report; the same command resumes"),
    ):
        sub = _add_verb(verbs, name, verb, text)
        add_config_arguments(sub)
        if name in ("plan", "preflight"):
            sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        if name == "plan":
            text = "do not fetch the config.json of a model on the Hub, a few kB, where it is not on this machine"
            sub.add_argument("--offline", action="store_true", help=text)
        if name == "inspect":
            _add_inspect_options(sub)
        if name == "train":
            sub.add_argument("--until", metavar="STAGE", help="the last stage to train now; default: all")
            # For `sft submit ray`: the command ends at once if the program here is another one.
            sub.add_argument("--expect-source", metavar="HASH", help=argparse.SUPPRESS)
    _add_submit(verbs)
    for name, verb, text in (
        ("status", _status, "what a run is doing, from any machine that sees its folder"),
        ("report", _report, "one self-contained HTML page with tables and plots, also of a run under way"),
        ("verify", _verify, "hashes all files again and proves that each pack was trained once; exit code 1 if not"),
    ):
        sub = _add_verb(verbs, name, verb, text)
        sub.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the folder of a run (`run.dir`)")
        if name == "status":
            sub.add_argument("--watch", action="store_true", help="show it again and again, until the run has ended")
            sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, verb: Verb, text: str
) -> argparse.ArgumentParser:
    sub = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=_EXIT_CODES)
    sub.set_defaults(verb=verb, parser=sub)
    return sub


def _add_submit(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "hand the job to a cluster, where it trains"
    places = verbs.add_parser("submit", help=text, description=text).add_subparsers(required=True, metavar="PLACE")
    for name, verb, text in (
        ("slurm", _submit_slurm, "queue it in Slurm, on nodes of its own"),
        ("ray", _submit_ray, "start it on a Ray cluster and follow it; --kuberay: on Kubernetes"),
    ):
        sub = _add_verb(places, name, verb, text)
        add_config_arguments(sub)
        sub.add_argument("--dry-run", action="store_true", help="print what would be submitted, and do nothing")
        if name == "ray":
            _add_ray_options(sub)


def _add_ray_options(parser: argparse.ArgumentParser) -> None:
    text = "of Ray's dashboard, such as http://HEAD_NODE:8265; default: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS"
    parser.add_argument("--address", metavar="URL", help=text)
    text = "send this package along: a wheel, or a checkout such as `.`; default: the one that the cluster has"
    parser.add_argument("--package", type=Path, metavar="PATH", help=text)
    parser.add_argument("--detach", action="store_true", help="do not follow the job's log")
    parser.add_argument("--kuberay", action="store_true", help="print the manifest of a RayJob instead")


def _add_inspect_options(parser: argparse.ArgumentParser) -> None:
    count = _at_least(1)
    parser.add_argument("--num", type=count, metavar="N", help="examples shown: 3 on the console, 200 on a page")
    parser.add_argument("--task", metavar="NAME", help="only examples of this task")
    parser.add_argument("--source", metavar="NAME", help="only examples of this source")
    parser.add_argument("--min-tokens", type=count, metavar="N", help="only examples at least this long")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="only examples at most this long")
    parser.add_argument("--row", type=_at_least(0), metavar="ID", help="this row of the store")
    parser.add_argument("--seed", type=int, metavar="N", help="another seed, other examples; default: run.seed")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained page instead")
    parser.add_argument(
        "--check", action="store_true", help="check every row; exit code 1 where an invariant is broken"
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number
