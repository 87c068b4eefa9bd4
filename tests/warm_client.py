"""A small process that stands for a fork of a warm one (`tests.warm_process`): SOCKET MODULE-OR-SCRIPT ARGUMENTS…

The fork gets its open files under their numbers, its variables, arguments and folder; the one ends as the other does.
What is signalled to the small process alone does not reach the fork. It imports little, since that is what it is for.
"""

import json
import os
import socket
import sys


def stand_for_a_fork(address: str, what: str, *arguments: str) -> None:
    files = sorted(file for file in map(int, os.listdir("/proc/self/fd")) if is_open(file))
    request = {"what": what, "arguments": arguments, "variables": dict(os.environ), "folder": os.getcwd()}
    content = json.dumps({**request, "files": files}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(content).to_bytes(8, "little")], files)
        connection.sendall(content)
        code = int(connection.recv(16) or b"1")
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def is_open(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError:  # the listing's own
        return False
    return True


if __name__ == "__main__":
    stand_for_a_fork(*sys.argv[1:])
