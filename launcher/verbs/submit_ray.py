"""`sft submit ray`: has a Ray cluster run a job, or prints it for Kubernetes."""

import argparse
import sys
from pathlib import Path

from sft.config_arguments import add_config_arguments

SUMMARY = "start the job on a Ray cluster and follow it; --kuberay: on Kubernetes"
EXAMPLES = """\
sft submit ray my.yaml --address http://HEAD_NODE:8265
sft submit ray my.yaml --package . --detach      # with the program of this checkout
sft submit ray my.yaml --kuberay | kubectl apply -f -"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted, and do nothing")
    text = "the URL of Ray's dashboard, such as http://HEAD_NODE:8265; default: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS"
    parser.add_argument("--address", metavar="URL", help=text)
    text = "send this package along: a wheel, or a checkout such as `.`; default: the one that the cluster has"
    parser.add_argument("--package", type=Path, metavar="PATH", help=text)
    parser.add_argument("--detach", action="store_true", help="do not follow the job's log")
    parser.add_argument("--kuberay", action="store_true", help="print the manifest of a RayJob instead")


def run(options: argparse.Namespace) -> int:
    """Start and follow it, or print what would be sent."""
    from launcher.exit_codes import DONE
    from launcher.submission.portable_job import render_config
    from sft.errors import UserError

    job, origin = options.job, str(options.config)
    config = render_config(job, origin)
    if options.kuberay and options.package is not None:
        raise UserError("--kuberay: the pods run the program in their image; build it from your package instead.")
    if options.kuberay:
        from launcher.plan import plan_job
        from launcher.submission.kuberay import render_manifest

        sys.stdout.write(render_manifest(job, plan_job(job), config, origin))
        return DONE
    from launcher.submission import ray_jobs

    request = ray_jobs.plan_request(job, config, options.package)
    if options.dry_run:
        sys.stdout.write(ray_jobs.describe(request))
        return DONE
    return ray_jobs.submit(request, job.sft.run.name, options.address, not options.detach)
