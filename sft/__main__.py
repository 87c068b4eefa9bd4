"""`python -m sft` is the command `sft`, which belongs to the launcher: this package knows it by name only."""

import runpy

if __name__ == "__main__":
    runpy.run_module("launcher", run_name="__main__", alter_sys=True)
