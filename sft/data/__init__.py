"""From records to the tensors of a step; every stage hands on an immutable type, and only the last one needs torch.

    reading     files, folders, URLs, the Hub ──▶ Block ──▶ Record
    formats     Record ──▶ Conversation, or the reason why not
    rendering   Conversation ──▶ the chat template's own text, and where its answers are
    tokenization ──▶ Example ──▶ token_store (preparation: blocks in, parts of the store out)
    planning    what may be trained, how much of it, in which order, in which packs ──▶ PackPlan
    loader ──▶ Pack ──collate──▶ Batch

Invariants: formatting is total or counted · the text is the chat template's own · no prompt token is supervised, and
every trained turn's stop token is · the mixture's shares hold in every block · packs partition the mixture.
"""
