"""Saves steps 1 and 2 into a folder for each moment, and is killed at that moment of the second.

python -m tests.checkpoint.killed_saves FOLDER
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from sft.checkpoint.local_storage import LocalStorage
from tests.checkpoint.ranks import save_steps

MOMENTS = {
    "in the file": 1,
    "before the receipt": 1,
    "before the manifest": 1,
    "before the deletion": 2,
    "in the deletion": 2,
}
"""Each with the step that the next attempt goes on from."""


def kill(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(LocalStorage):
    """A folder whose user is killed at a moment of step 2."""

    def __init__(self, folder: Path, moment: str) -> None:
        super().__init__(folder)
        self._moment = moment

    def write_part(self, key: Any, name: str, write: Any) -> None:
        def write_and_die(path: Path) -> Any:
            if self._moment == "in the file":
                path.write_bytes(b"half")
            else:
                write(path)
            kill()

        early = key.step == 2 and self._moment in ("in the file", "before the receipt")
        super().write_part(key, name, write_and_die if early else write)

    def publish(self, key: Any, *arguments: Any) -> None:
        if key.step == 2 and self._moment == "before the manifest":
            kill()
        super().publish(key, *arguments)

    def delete(self, step: int) -> None:
        if self._moment == "before the deletion":
            kill()
        shutil.rmtree = kill
        super().delete(step)


if __name__ == "__main__":
    for name in MOMENTS:
        if not (child := os.fork()):
            save_steps(Deadly(Path(sys.argv[1]) / name, name), 1, 1, 2, keep_last=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"{name}: it was not killed"
        assert os.WTERMSIG(status) == signal.SIGKILL
