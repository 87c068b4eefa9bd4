"""Whether the head of a Ray cluster answers. Ray itself takes minutes to say that it does not."""

import re
import socket
import time

_ANSWER_SECONDS = 2.0
_LOOK_SECONDS = 0.5

_HOST_AND_PORT = re.compile(r"(?:\w+://)?\[?(?P<host>[^\[\]/]+?)\]?:(?P<port>\d+)")


def answers(address: str) -> bool:
    """Whether anything takes a connection at host:port; True for any other form of address, which Ray resolves."""
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        return True
    try:
        with socket.create_connection((found["host"], int(found["port"])), _ANSWER_SECONDS):
            return True
    except OSError:
        return False


def answers_within(address: str, seconds: float) -> bool:
    """The same, for a head that may still be starting."""
    deadline = time.monotonic() + seconds
    while not answers(address):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
