"""Seeds by name: every random decision has its own seed, so that adding one never changes another.

There is no global random state anywhere; a function that shuffles takes the seed it needs.
"""

import hashlib


def derive_seed(run_seed: int, *names: str | int) -> int:
    """A 63-bit seed for the decision that `names` spell out, such as `derive_seed(17, "packing", "broad")`."""
    text = "\x1f".join([str(run_seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
