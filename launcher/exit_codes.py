"""The exit codes of the command `sft`."""

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 3
INTERRUPTED = 130
INTERRUPTION = "interrupted; the same command goes on from what is saved\n"
ENDED = "Ended by {}; no step is lost by it. The same command goes on."
OUTPUT_GONE = 141
"""Nobody reads what is printed any more, as behind `| head -1`: what shells give to one who was ended for that."""


def code_of_signal(number: int) -> int:
    """What shells give to a process that a signal has ended."""
    return 128 + number


IN_WORDS = "Exit codes: 0 done, 1 failed, 2 wrong config or input, 3 stopped on request."
