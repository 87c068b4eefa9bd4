"""From records to the tensors of a step; every hop is an immutable type, and all but the last are free of torch.

    reading     files, folders, URLs, the Hub ──▶ Block ──▶ Record
    formats     Record ──▶ Conversation, or the reason why not
    rendering   Conversation ──▶ the chat template's own text, and where its answers stand
    tokenization ──▶ Example ──▶ token_store (preparation: blocks in, parts of the store out)
    planning    what may be trained, how much of it, in which order, in which packs ──▶ PackPlan
    loader ──▶ Pack ──collate──▶ Batch

Invariants: formatting is total or counted · the text is the chat template's own · no prompt token is supervised
and every trained turn's stop token is · the mixture's shares hold in every block · packs partition the mixture.
"""
