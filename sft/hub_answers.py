"""Whether the Hub can be asked for what a config names by an id: found out once, in seconds.

The libraries that load from the Hub try again for most of a minute, each for each file. Most of the time that is in
vain: the id is a slip in a path, or this machine has no network.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from huggingface_hub import constants, get_session

from sft.absolute_paths import how_to_fetch, may_be_hub_id, near_it
from sft.config import SftConfig
from sft.config_paths import HubKind, named_paths
from sft.errors import UserError
from sft.url_secrets import without_secrets

_SECONDS = 5.0


def check_hub_answers(config: SftConfig, kinds: Collection[HubKind] = ("model", "dataset")) -> None:
    """Where something of these kinds has to come from the Hub, see that the Hub is there.

    Raises:
        UserError: it does not answer; with all ids that are neither here nor in its caches.
    """
    missing = [
        (named.field, named.path, named.mark.hub)
        for named in named_paths(config)
        if named.mark.hub
        and named.mark.hub in kinds
        and may_be_hub_id(named.path, named.mark.hub)
        and not _is_cached(named.path, named.mark.hub)
    ]
    # Told not to ask it, the libraries end at once.
    if not missing or constants.HF_HUB_OFFLINE or (why_not := why_no_answer()) is None:
        return
    told = [
        f"{field}: there is no {Path(path).absolute()}{near_it(Path(path.partition('/')[0]).absolute())}. As an id of "
        f"the Hub it is not on this machine. Correct the path, or fetch it where the Hub answers: "
        f"{how_to_fetch(path, kind)}"
        for field, path, kind in missing
    ]
    raise UserError("\n".join([*told, f"The Hub ({without_secrets(constants.ENDPOINT)}) does not answer: {why_not}"]))


def _is_cached(path: str, kind: HubKind) -> bool:
    if Path(constants.HF_HUB_CACHE, f"{kind}s--{path.replace('/', '--')}").is_dir():
        return True
    # `datasets` has a cache of its own, with names that it spells in its own way: HuggingFaceH4___no_robots.
    of_data_sets = Path(os.environ.get("HF_DATASETS_CACHE", os.path.join(constants.HF_HOME, "datasets")))
    folders = os.listdir(of_data_sets) if kind == "dataset" and of_data_sets.is_dir() else []
    return _letters(path) in map(_letters, folders)


def _letters(name: str) -> str:
    return re.sub(r"[/_]", "", name).lower()


def why_no_answer() -> str | None:
    """What went wrong when the Hub was asked; None where it has answered, whatever it said."""
    answers: SimpleQueue[str | None] = SimpleQueue()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_SECONDS)
            answers.put(None)
        except Exception as error:  # each layer below has its own errors for a missing network
            answers.put(without_secrets(f"{type(error).__name__}: {error}".splitlines()[0]))

    # The time limit does not hold for the search for the address.
    Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=2 * _SECONDS)
    except Empty:
        return f"nothing came within {2 * _SECONDS:g} seconds"
