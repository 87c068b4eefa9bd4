"""Stands for `python -u -c CODE` in a fork of the warm process: pytest-xdist starts its processes so."""

import sys

if __name__ == "__main__":
    exec(sys.argv[-1], {"__name__": "__main__"})
