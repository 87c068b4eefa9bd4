"""Saves steps 1 and 2 into a place for each moment, and is killed at that moment of the second; then one that is killed
while it sets a damaged step 2 aside.

python -m tests.checkpoint.killed_uploads URL
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import fsspec
import s3fs

from sft.checkpoint.open_storage import open_storage
from tests.checkpoint.ranks import resumed_step, save_steps

PART = 5 * 2**20
"""The least that S3 takes."""

NUMEL = {"between two parts of a file": 10**6}
"""A rank's file of 12 MB goes up in three; the others are small."""

SAVES = {
    "between two parts of a file": ("upload_part", 5, 1),
    "before the receipt": ("put .receipt", 2, 1),
    "before the manifest": ("put .json", 2, 1),
    "in the deletion": ("delete_objects", 1, 2),
}
"""Each with the request that is not sent any more, which one of its kind, and the step that the next attempt goes on
from."""

MOVES = {
    "between two copies": ("copy_object", 2),
    "while the damaged one is removed": ("delete_objects", 1),
}


def kill_at(request: str, number: int) -> None:
    """Let s3fs send this request no more."""
    send: Callable[..., Any] = s3fs.S3FileSystem._call_s3
    counts: dict[str, int] = {}

    async def send_or_die(files: Any, method: str, *arguments: Any, **named: Any) -> Any:
        name = f"put {os.path.splitext(named['Key'])[1]}" if method == "put_object" else method
        counts[name] = counts.get(name, 0) + 1
        if name == request and counts[name] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return await send(files, method, *arguments, **named)

    s3fs.S3FileSystem._call_s3 = send_or_die


def flip_a_bit(url: str) -> None:
    files, root = fsspec.url_to_fs(url)
    path = next(path for path in files.find(f"{root}/step-00000002") if path.endswith(".safetensors"))
    content = bytearray(files.cat_file(path))
    content[-1] ^= 1
    files.pipe_file(path, bytes(content))


def main(base: str) -> None:
    s3fs.core.calculate_chunksize = lambda size, chunksize: PART
    for name, (request, number, *_) in {**SAVES, **MOVES}.items():
        if not (child := os.fork()):
            url = f"{base}/{name}"
            if name in MOVES:
                save_steps(open_storage(url), 1, 1, 2)
                flip_a_bit(url)
                kill_at(request, number)
                resumed_step(open_storage(url), 1)
            else:
                kill_at(request, number)
                save_steps(open_storage(url), 1, 1, 2, numel=NUMEL.get(name, 37), keep_last=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"{name}: it was not killed"
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main(sys.argv[1])
