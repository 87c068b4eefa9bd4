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
    finally:
        # Python ends by Ctrl-C's signal, not with our code, where an interrupt has left a code string, as those that
        # dataclasses are made of, even if it was caught. The next code string makes it forget that.
        exec("")


if __name__ == "__main__":
    sys.exit(main())
