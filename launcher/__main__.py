"""`python -m launcher` is the command `sft`."""

import sys

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
