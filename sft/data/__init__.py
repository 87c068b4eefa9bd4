"""From records to the tensors of a step; every hop is an immutable type, and all but the last are free of torch.

    sources ──Record──▶ formatting ──Conversation──▶ rendering ──text + answer spans──▶ tokenization ──Example──▶
    token_store ──lengths, tasks──▶ mixture ──order of example ids──▶ packing ──PackPlan on disk──▶
    loader ──Pack──▶ collate ──Batch──▶ engine

Invariants: formatting is total or counted · the text is the chat template's own · no prompt token is supervised
and every trained turn's stop token is · the mixture's shares hold in every block · packs partition the mixture.
"""
