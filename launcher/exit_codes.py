"""The exit codes of the command `sft`."""

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 3
INTERRUPTED = 130

IN_WORDS = "Exit codes: 0 done, 1 failed, 2 wrong config or input, 3 stopped on request."
