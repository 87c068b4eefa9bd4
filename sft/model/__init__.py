"""The model: loaded under ZeRO-3 or on one rank, with attention that stays inside segments and a loss without logits.

    Batch ──packed attention──▶ hidden states at supervised positions ──chunked head──▶ nll of each supervised token

Invariants: attention never crosses a segment; the one shift between a token and its prediction is in `loss`.
"""
