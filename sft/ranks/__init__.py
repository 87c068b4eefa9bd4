"""The ranks of a job, as one of them sees them: what it asks of the others, what they agree on, how they wait.

    World (who this rank is) ──▶ Ranks (what it asks of the others) ──agreement──▶ one answer, or one error, for all
                                                                   ──shared_work──▶ slow work, waited for and watched

Invariant: whoever is given a `World` waits for nobody; whoever is given `Ranks` takes part in collectives, which all
ranks begin in the same order. Nothing else calls `torch.distributed`.
"""
