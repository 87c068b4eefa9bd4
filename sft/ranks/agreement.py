"""What all ranks agree on. Every function is a collective.

An error of one rank becomes an error of all, before the next collective waits for that rank in vain.
"""

import torch

from sft.errors import TrainingError, UserError
from sft.ranks.ranks import Ranks


def any_rank(ranks: Ranks, mine: bool) -> bool:
    """Whether any rank says True."""
    return bool(ranks.max(torch.tensor([int(mine)])).item())


def meet(ranks: Ranks) -> None:
    """Return once all ranks are here."""
    any_rank(ranks, False)


def all_texts(ranks: Ranks, mine: str | None) -> list[str]:
    """The texts of all ranks that have one, each once, sorted."""
    return sorted({text for text in ranks.gather(mine or "") if text})


def raise_together(ranks: Ranks, message: str | None, kind: type[UserError] | type[TrainingError] = UserError) -> None:
    """If any rank has a message, all raise it.

    Raises:
        UserError: (or `kind`) with the messages of all ranks, each once.
    """
    if found := all_texts(ranks, message):
        raise kind("\n".join(found), is_everywhere=True)
