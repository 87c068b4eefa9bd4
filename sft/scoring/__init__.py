"""How good answers are: scorers by name, each judging one answer, and statistics over many.

    score: … (config) ─registry─▶ Score ──┐
    Answer, Question ─────────────────▶ judging ─▶ Verdict ─▶ scores by task and question ─statistics─▶ intervals
                                           └─ code by its tests: sandbox

Nothing here knows a model: answers may come from an engine, from a server or from a file. Scorers keep no state, and a
question that a scorer cannot judge is counted and costs nothing else.
"""
