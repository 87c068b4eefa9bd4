"""Imports large libraries without the collector of reference cycles, which would take a sixth of their time.

What modules make stays for the life of the process. So each collection in between looks at all of it in vain.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """No cycles are collected inside."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
