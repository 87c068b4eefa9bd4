"""Records to review, and the server of their page in this process or in one of its own."""

import asyncio
import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from sft.approval.record_set import find_place
from sft.review.server import build_app
from sft.review.session import ReviewSession, Setting, View
from tests.forked_ranks import warm_command

TOKEN = "t" * 32


def record(question: str, answer: str, task: str = "sorting", judge: float | None = None) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    made: dict[str, Any] = {"messages": turns, "task": task}
    return made if judge is None else {**made, "provenance": {"scores": {"judge": judge}}}


def write_records(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one, ensure_ascii=i % 2 == 0) + "\n" for i, one in enumerate(records))
    (folder / "records.jsonl").write_text(text, encoding="utf-8")
    return folder


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    path = folder / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@contextmanager
def served(folder: Path, reviewer: str = "kim", setting: Setting | None = None, view: View = None) -> Iterator[str]:
    """The address of the page, served by a thread."""
    session = ReviewSession(find_place(folder), reviewer, setting or Setting(), view)
    loop = asyncio.new_event_loop()
    started: list[str] = []
    is_up = threading.Event()

    async def begin() -> web.AppRunner:
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        runner = web.AppRunner(build_app(session, TOKEN, address), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        started.append(f"http://{address}/{TOKEN}/")
        return runner

    def work() -> None:
        runner = loop.run_until_complete(begin())
        is_up.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert is_up.wait(20)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@contextmanager
def own_process(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`sft review` with its address; killed at the end."""
    command = warm_command("launcher", "review", str(folder), *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", process.stdout.readline())
            assert found
            yield process, found[0]
        finally:
            process.kill()
