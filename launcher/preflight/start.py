"""The preflight before a job starts: an error prevents the start, a warning is printed."""

from rich.console import Console

from launcher.preflight.checks import check
from launcher.preflight.table import errors_as_text, show_findings, summary
from sft.errors import UserError
from sft.job_config import JobConfig


def pass_preflight(job: JobConfig, console: Console) -> None:
    """Check, and print warnings and the summary.

    Raises:
        UserError: with all errors; or the cluster cannot be reached.
    """
    preflight = check(job)
    show_findings(preflight.warnings, console)
    if preflight.errors:
        raise UserError(errors_as_text(preflight))
    console.print(summary(preflight), highlight=False, markup=False, soft_wrap=True)
