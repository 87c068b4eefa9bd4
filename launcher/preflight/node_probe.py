"""What the driver asks of one node. It runs there as a Ray actor (see `probes`) and knows nothing of Ray itself."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.preflight.gpu_gather import gather_in_process
from launcher.preflight.gpu_speed import Speeds, measure_speeds
from launcher.preflight.network import Listener, Peer, open_store, time_all_reduce, unreachable
from launcher.preflight.node_facts import NodeFacts, Request, look, source_hash
from launcher.preflight.shared_folders import FolderAnswer, SharedFolder, answer_on_node, mark_name, remove_mark


class NodeProbe:
    """One for each node; its methods are called one after the other."""

    def __init__(self, address: str, who: str) -> None:
        """`address` is this node's, as Ray knows it; `who` a name for its marks."""
        self._address = address
        self._who = who
        self._listener: Listener | None = None
        self._store: Any = None

    def source(self) -> str:
        """See `source_hash`. Asked first: the other answers of a different program could not be trusted."""
        return source_hash()

    def clock(self) -> float:
        """Seconds since 1970, by this node's clock."""
        return time.time()

    def look(self, request: Request) -> NodeFacts:
        """See `node_facts.look`."""
        return look(request)

    def measure_gpus(self, devices: Sequence[str]) -> Speeds | str:
        """See `measure_speeds`."""
        return measure_speeds(devices)

    def open_store(self) -> Peer:
        """Where the two ranks of an all-gather find each other."""
        self._store = open_store(self._address)
        return Peer(self._address, self._store.port)

    def gather(self, device: str, store: Peer, rank: int) -> float | str:
        """See `gather_in_process`."""
        return gather_in_process(device, store, rank, self._address)

    def use_folders(self, folders: Sequence[SharedFolder], word: str) -> dict[str, FolderAnswer]:
        """See `answer_on_node`, for each field."""
        return {folder.field: answer_on_node(folder, word, self._who) for folder in folders}

    def remove_marks(self, folders: Sequence[SharedFolder], word: str) -> None:
        """Remove what `use_folders` left."""
        for folder in folders:
            remove_mark(folder.location, mark_name(word, self._who))

    def listen(self) -> Peer | str:
        """Where this node listens from now on, or why it cannot."""
        try:
            self._listener = Listener(self._address)
        except OSError as error:
            return f"cannot listen on its address {self._address}: {error.strerror}"
        return Peer(self._address, self._listener.port)

    def reach(self, peers: Mapping[str, Peer], word: str) -> dict[str, str]:
        """See `unreachable`."""
        return unreachable(peers, word)

    def begin_all_reduce(self, is_first: bool) -> Peer | None:
        """Import what the all-reduce needs; the first rank opens the store and says where."""
        if not is_first:
            import torch.distributed  # noqa: F401, PLC0415  (takes seconds, on all nodes at the same time)

            return None
        self._store = open_store(self._address)
        return Peer(self._address, self._store.port)

    def all_reduce(self, rank: int, size: int, store: Peer) -> list[float] | str:
        """See `time_all_reduce`; or why it failed."""
        try:
            return time_all_reduce(self._address, rank, size, store)
        except RuntimeError as error:
            return " ".join(str(error).split())[:300]
