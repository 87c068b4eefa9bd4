"""Weights that are fetched from the Hub: told of piece by piece, so that a slow line is no hang."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * (45 * 4096)  # 45 MiB; the Hub's package writes 10 MB at a time

FETCH = """
import sys
from sft.model.weight_files import finder
from sft.progress import Progress

told = Progress()
path = finder("someone/model", True, told.tell)("model.safetensors")
print(path.stat().st_size, told.count)
"""


class Hub(BaseHTTPRequestHandler):
    """One file, as the Hub gives it."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_is_seen_to_go_on(hub: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", FETCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    size, count = map(int, done.stdout.split())
    assert size == len(CONTENT)
    assert count >= 4
