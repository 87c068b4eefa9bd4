"""`python -m launcher` is the command `sft`."""

import sys

from launcher.exit_codes import INTERRUPTED, INTERRUPTION


def main() -> int:
    """Run it; Ctrl-C counts from its first imports on, which take a moment."""
    try:
        from launcher.cli import main as run  # noqa: PLC0415  (see above)

        return run()
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTION)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
