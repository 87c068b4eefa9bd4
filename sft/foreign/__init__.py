"""The keys of other systems' configs, and what they are here.

    keys (one table: their key → ours, how its value is converted, what differs) ── values (the conversions)
    answers (what a config that has such a key is told)

A config is read with it, so it imports nothing of ours.
"""
