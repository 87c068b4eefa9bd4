"""Whether nodes reach each other over TCP, and how fast an all-reduce between them is.

Ranks talk to each other on ports that the system chooses, so any port has to be open between nodes. Every pair is tried
before the all-reduce, whose failure would only say that it did not return.
"""

import socket
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

_CONNECT_SECONDS = 5.0
_COLLECTIVE_SECONDS = 30.0
_MOST_CONNECTIONS = 32

PAYLOAD_BYTES = 32 * 2**20
_NUM_TIMED = 3


class Peer(NamedTuple):
    """Where a node listens."""

    address: str
    port: int


class AllReduce(NamedTuple):
    """How long the nodes took to add up a tensor that each of them has, one process a node, over gloo and TCP."""

    num_nodes: int
    num_bytes: int
    seconds: float

    @property
    def gigabytes_per_second(self) -> float:
        """Algorithm bandwidth, as nccl-tests define it: bytes of the tensor / seconds (1 GB is 10^9 bytes)."""
        return self.num_bytes / self.seconds / 1e9


class Listener:
    """Listens on a port of this node's address and echoes what it receives, until it is closed."""

    def __init__(self, address: str) -> None:
        """Choose a free port.

        Raises:
            OSError: this machine cannot listen on the address.
        """
        self._socket = socket.create_server((address, 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, name="preflight-listener", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                with connection, suppress(OSError):
                    connection.settimeout(_CONNECT_SECONDS)
                    connection.sendall(connection.recv(256))


def unreachable(peers: Mapping[str, Peer], word: str) -> dict[str, str]:
    """The peers that do not answer this node, each with the reason."""
    if not peers:
        return {}
    with ThreadPoolExecutor(min(len(peers), _MOST_CONNECTIONS)) as threads:
        reasons = threads.map(lambda peer: _try(peer, word), peers.values())
    return {name: reason for name, reason in zip(peers, reasons, strict=True) if reason is not None}


def _try(peer: Peer, word: str) -> str | None:
    try:
        with socket.create_connection(peer, timeout=_CONNECT_SECONDS) as connection:
            connection.sendall(word.encode())
            answer = connection.recv(256)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None if answer == word.encode() else "something else answers there"


def open_store(address: str) -> Any:
    """A `TCPStore` by which the ranks of an all-reduce find each other; its port is `store.port`."""
    import torch.distributed as dist  # noqa: PLC0415  (seconds; only where bandwidth is measured)

    timeout = timedelta(seconds=_COLLECTIVE_SECONDS)
    # torch's stubs leave it out.
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, 0, is_master=True, wait_for_workers=False, timeout=timeout
    )


def gloo_group(store: Peer, rank: int, size: int, own_address: str) -> Any:
    """A process group of its own on CPUs, over the node's network."""
    import torch.distributed as dist  # noqa: PLC0415  (seconds; only where bandwidth is measured)

    # torch's stubs leave out most of these.
    c10d: Any = dist
    timeout = timedelta(seconds=_COLLECTIVE_SECONDS)
    options = c10d.ProcessGroupGloo._Options()
    options._timeout = timeout
    # Otherwise gloo takes the address that the host name resolves to, which may work on this machine only.
    options._devices = [c10d.ProcessGroupGloo.create_device(hostname=own_address)]
    client = c10d.TCPStore(store.address, store.port, is_master=False, timeout=timeout)
    return c10d.ProcessGroupGloo(client, rank, size, options)


def time_all_reduce(own_address: str, rank: int, size: int, store: Peer) -> list[float]:
    """Seconds of each timed all-reduce, on this rank; all ranks call it together.

    Raises:
        RuntimeError: the ranks do not find each other in time, or the sum is wrong.
    """
    import torch  # noqa: PLC0415  (seconds; only where bandwidth is measured)

    group = gloo_group(store, rank, size, own_address)
    tensor = torch.empty(PAYLOAD_BYTES // 4)
    seconds = []
    for _ in range(1 + _NUM_TIMED):
        tensor.fill_(1)
        started = time.perf_counter()
        group.allreduce([tensor]).wait()
        seconds.append(time.perf_counter() - started)
    if not bool((tensor == size).all()):
        raise RuntimeError("the sum of the all-reduce is wrong: data is damaged on its way")
    return seconds[1:]  # the first one makes connections


def summarize(seconds: Sequence[Sequence[float]]) -> AllReduce:
    """From the seconds of all ranks, (ranks, times): one all-reduce takes as long as its slowest rank."""
    slowest = [max(of_ranks) for of_ranks in zip(*seconds, strict=True)]
    return AllReduce(len(seconds), PAYLOAD_BYTES, statistics.median(slowest))
