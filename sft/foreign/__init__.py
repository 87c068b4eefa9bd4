"""The keys of other systems' configs, and their equals here.

keys (one table: their key → ours, how its value is converted, what differs) ── values (the conversions)
answers (the message for a config that has such a key)

Reading a config uses this package, so it imports nothing else of `sft`.
"""
