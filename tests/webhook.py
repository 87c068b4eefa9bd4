"""A webhook on this machine, which keeps what it was sent."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Keeps what it was sent; the first requests it answers with the given statuses, None: not at all."""

    def __init__(self, statuses: list[int | None]) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.num_requests = 0
        hook, self.released = self, threading.Event()

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.num_requests += 1
                status = statuses.pop(0) if statuses else 200
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if status is None:
                    hook.released.wait(60)
                    return
                if status == 200:
                    assert self.headers["Content-Type"] == "application/json"
                    hook.alerts.append(json.loads(content))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/SECRET-PATH"

    def wait_for(self, num_alerts: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 30
        while len(self.alerts) < num_alerts:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.alerts


@contextmanager
def webhook(*statuses: int | None) -> Iterator[Webhook]:
    hook = Webhook(list(statuses))
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        hook.released.set()
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()
