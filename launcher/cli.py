"""The command `sft`: one verb for each thing that can be done with a config or a run folder.

A mistake of the user is one message on stderr and exit code 2, never a traceback.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.command_line import build_parser, parse
from launcher.completion import complete
from launcher.console import let_streams_take_any_text, say_error
from launcher.exit_codes import FAILED, INTERRUPTED, INTERRUPTION, OUTPUT_GONE, WRONG_INPUT
from launcher.interruption import EndRequested, ended_on_request
from sft.config_arguments import overrides_of
from sft.errors import UserError
from sft.guarded_output import OutputError, output_guarded
from sft.training.process import quiet_third_parties


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (see `launcher.exit_codes`)."""
    let_streams_take_any_text()
    with output_guarded():
        try:
            try:
                return _run(arguments)
            finally:
                sys.stdout.flush()
        except OutputError as error:
            if error.is_gone:
                return OUTPUT_GONE
            say_error(error)
            return FAILED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        parser = build_parser()
        complete(parser)
        options = parse(parser, arguments)
        _check_working_folder()
        quiet_third_parties()  # they read what it sets when they are imported
        if "config" in options:
            from sft.job_config import load_job  # noqa: PLC0415  (pydantic, which `--help` does without)

            options.job = load_job(options.config, overrides_of(options))
            sys.stderr.writelines(f"{options.config}: {note}\n" for note in options.job.notes)
        run: Callable[..., int] = options.run
        with ended_on_request():
            return run(options)
    except UserError as error:
        say_error(error)
        return WRONG_INPUT
    except EndRequested as request:
        say_error(request.in_words)
        return request.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTION)
        return INTERRUPTED


def _check_working_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("The working folder is gone: it was deleted or moved. Change into one that exists.") from None


if __name__ == "__main__":
    sys.exit(main())
