"""Filters say which drafts are not kept, and why, before people look at them.

    Draft ──form──json── … ──difficulty──judge──diversity──▶ kept
              └─────┴───────────┴─────────┴────────┴───────▶ (filter, reason)

The cheapest come first (`registry.FILTERS`). All but `judge` ask nobody: with others, the same log gives other records.
"""
