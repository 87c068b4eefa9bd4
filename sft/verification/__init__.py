"""Holds a run folder to what it says of itself: every published file to its hash, every step to its plan.

    manifests ─ artifacts ─▶ which are whole ─┐
    ledger, plan, token store ─ stage_check ──┴─▶ RunVerified: what was trained, and the findings

Invariant: nothing is written, and no source is read again; a run under way can be verified too. What the ranks fed is
proven by digests that are computed again from plan and token store, whose own files are hashed first.
"""
