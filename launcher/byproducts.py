"""What is nice to have behind work that is done: reports, pictures, tables. Where one cannot be made, that is said in a
line, and the work counts as done all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from launcher.console import styled
from sft.printable import shortened

_MAX_REASON_CHARS = 300


@contextmanager
def byproduct(what: str, again: str, console: Console) -> Iterator[None]:
    """While open, an error is a warning: whatever it is, what matters is on the disk already.

    Args:
        what: is made meanwhile, such as "The report".
        again: the command that makes it again; it shows where an error of ours came from.
        console: where the warning is shown.
    """
    try:
        yield
    except Exception as error:
        why = shortened(" ".join(f"{type(error).__name__}: {error}".split()), _MAX_REASON_CHARS)
        text = "[yellow]{} cannot be made[/], and nothing else is missing: {}. To try again: {}"
        console.print(styled(text, what, why, again), soft_wrap=True)
