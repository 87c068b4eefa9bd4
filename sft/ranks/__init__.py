"""The ranks of a job, as one of them sees them: what they exchange, what they agree on, how they wait.

    World (who this rank is) ──▶ Ranks (what it asks of the others) ──agreement──▶ one answer, or one error, for all
                                                                   ──shared_work──▶ slow work, waited for and watched

Invariant: code that gets a `World` waits for no other rank; code that gets `Ranks` takes part in collectives, which all
ranks begin in the same order. Nothing else calls `torch.distributed`.
"""
