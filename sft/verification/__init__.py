"""Checks a run folder against its own records: every published file against its hash, every step against its plan.

    manifests ─ artifacts ─▶ which are intact ─┐
    ledger, plan, token store ─ stage_check ───┴─▶ RunVerified: what was trained, and the findings

Invariant: nothing is written, and no source is read again; a run under way can be verified too. Digests prove what the
ranks fed: they are computed again from plan and token store, whose own files are hashed first.
"""
