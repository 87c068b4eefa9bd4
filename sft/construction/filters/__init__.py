"""Filters say which drafts are not kept, and why, before people look at them.

    Draft ──form──refusals──json──numbers──passage──heldout──copies──code──▶ kept
              └───────┴───────┴──────┴────────┴────────┴───────┴──────┴────▶ (filter, reason)

The cheapest come first. No filter asks a teacher: with other filters, the same log gives other records.
"""
