"""A server on loopback that sends bytes as they are: what a server of HTTP would not do, and what HTTP hides."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

Talk = Callable[["Line"], None]


@dataclass
class Line:
    """One connection."""

    number: int
    """It is the first, second, … that was made."""
    socket: socket.socket
    heads: list[str]
    """Of the requests of all connections."""
    _read: BinaryIO = field(init=False)

    def __post_init__(self) -> None:
        self._read = self.socket.makefile("rb")

    def request(self) -> str:
        """Its head; empty where the client has closed the connection."""
        head, num_bytes = "", 0
        while line := self._read.readline().decode(errors="replace"):
            head += line
            if line.lower().startswith("content-length:"):
                num_bytes = int(line.partition(":")[2])
            if line == "\r\n":
                self.heads.append(head)
                self._read.read(num_bytes)
                return head
        return ""

    def send(self, sent: bytes) -> None:
        self.socket.sendall(sent)


def whole(body: bytes, head: str = "", status: str = "200 OK") -> bytes:
    """An answer after which the connection stays open."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def sends(sent: bytes) -> Talk:
    """What answers each request so."""

    def talk(line: Line) -> None:
        while line.request():
            line.send(sent)

    return talk


@contextmanager
def raw_server(
    talk: Talk, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Its port and the heads of the requests; each connection ends when `talk` does."""
    heads: list[str] = []

    def talk_and_close(number: int, taken: socket.socket) -> None:
        with taken, suppress(OSError):
            encrypted = tls.wrap_socket(taken, server_side=True) if tls else taken
            with encrypted:
                talk(Line(number, encrypted, heads))

    def take() -> None:
        number = 0
        with suppress(OSError):  # closed
            while True:
                taken, _ = listening.accept()
                number += 1
                threading.Thread(target=talk_and_close, args=(number, taken), daemon=True).start()

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listening:
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1], heads
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
