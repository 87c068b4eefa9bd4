"""How hard each example is for a model, by the losses of its answers: what `sft score` measures.

TokenStore ──examples──▶ model ──losses──▶ LossTable (a row for each example) ──summary──▶ tables, report, inspect
"""
