"""A signal or a file asks for a stop; a second signal ends the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from sft.training.wishes import Wishes


def test_a_file_asks_for_a_stop(tmp_path: Path) -> None:
    wishes = Wishes(tmp_path / "STOP")
    assert not wishes.to_stop()
    (tmp_path / "STOP").touch()
    assert wishes.to_stop()


def test_the_first_signal_asks_and_the_second_ends(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sft.training.wishes import Wishes\n"
        "wishes = Wishes(Path(sys.argv[1])); wishes.listen(); assert not wishes.to_stop()\n"
        "os.kill(os.getpid(), signal.SIGUSR1); assert wishes.to_stop(); sys.stdout.write('asked'); sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGUSR1); sys.stdout.write('alive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "STOP")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env=os.environ,
    )
    assert (done.stdout, done.returncode) == ("asked", -signal.SIGUSR1), done.stderr
