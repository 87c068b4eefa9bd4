"""How busy `sft construct` keeps an endpoint, and what a request costs the machine that asks.

    OMP_NUM_THREADS=1 python -m benchmarks.construction
    OMP_NUM_THREADS=1 python -m benchmarks.construction --requests 1024 --at-once 64 --seconds 1

A server on loopback, in a process of its own, answers each request after a fixed time. If `at_once` requests are under
way from the first moment to the last, the server is as busy as it may be: `busy` is the share of that, until the last
answer, and until the output is written: the log is replayed, and the usual filters judge. Fewer are under way at the
beginning and at the end, so the share is that of a job of this size.

    many tasks   self_instruct and few_shot of 16 tasks: chains that do not wait for each other
    one task     a single chain of self_instruct, whose scripts see those a window before them

`CPU` is that of the asking process for each request, in milliseconds, with all its threads.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.filtering import measure_filters
from benchmarks.reviewing import measure_review
from sft.config_construction import ConstructConfig
from sft.construction.construction import construct_all
from sft.construction.prompts import Prompts
from sft.construction.recipes.recipe import Seed
from sft.construction.recipes.registry import read_recipes
from sft.construction.replaying import Progress
from sft.construction.work import Part, Work

NUM_TASKS = 16
SEEDS = [Seed(f"{i:024x}", f"Say {i} in words, then {i * i} in figures", f"answer {i}", "words") for i in range(128)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4096, help="about so many")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="that an answer takes")
    parser.add_argument("--filters", type=int, metavar="DRAFTS", help="see benchmarks.filtering")
    parser.add_argument("--review", type=int, metavar="RECORDS", help="see benchmarks.reviewing")
    options = parser.parse_args()
    if options.filters:
        measure_filters(options.filters, say)
    if options.review:
        measure_review(options.review, say)
    if options.filters or options.review:
        return
    with served(options.seconds) as url:
        for name, num_tasks in (("many tasks", NUM_TASKS), ("one task", 1)):
            with tempfile.TemporaryDirectory() as folder:
                print(measure(name, num_tasks, url, Path(folder), options), flush=True)


def say(line: str) -> None:
    print(line, flush=True)


def measure(name: str, num_tasks: int, url: str, folder: Path, options: argparse.Namespace) -> str:
    kinds = ("self_instruct", "few_shot") if num_tasks > 1 else ("self_instruct",)
    per_recipe = options.requests // len(kinds)
    nums = {"self_instruct": per_recipe // 3, "few_shot": per_recipe}
    forms = [{"kind": kind, "num": max(1, nums[kind] // num_tasks), "tasks": "all"} for kind in kinds]
    given = ConstructConfig.model_validate(
        {
            "teacher": {"endpoint": url, "model": "tiny", "at_once": options.at_once},
            "recipes": forms,
            "out": folder / "made",
        }
    )
    parts = [
        Part(recipe, f"task {i}", recipe.num, SEEDS) for recipe in read_recipes(given.recipes) for i in range(num_tasks)
    ]
    ended = started = time.monotonic()
    cpu = time.process_time()

    def tell(progress: Progress) -> None:
        nonlocal ended
        ended = time.monotonic()

    done = construct_all(Work(parts, Prompts(), run_seed=17), given, tell)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    if done.error is not None:
        raise done.error
    num = done.spending.num_requests
    full = num * options.seconds / options.at_once
    busy = f"busy {full / (ended - started):6.1%} while it asks, {full / seconds:6.1%} in all"
    return f"{name:10}  {num:6,} requests  {seconds:7.2f} s  {busy}  CPU {1e3 * cpu / num:5.2f} ms a request"


@contextmanager
def served(seconds: float) -> Iterator[str]:
    """The address of the server, for as long as the context is open."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(seconds, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def serve(seconds: float, connection: Connection) -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: answer(reader, writer, seconds), "127.0.0.1", 0)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Answer the requests of a connection, one after the other."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                body = {"data": [{"id": "tiny"}]}
            else:
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = reply(json.loads(await reader.readexactly(length)))
                await asyncio.sleep(seconds)
            data = json.dumps(body).encode()
            kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            writer.write(kind + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def reply(asked: dict[str, Any]) -> dict[str, Any]:
    """What each prompt asks for: all of it new."""
    prompt = asked["messages"][-1]["content"]
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    words = " ".join(digest[i : i + 4] for i in range(0, 64, 4))
    forms = ("instruction", "input", "output", "prompt")
    form = next((name for name in forms if f'{{"{name}"' in prompt), "")
    content: dict[str, Any] = {form: words}
    if form == "instruction":
        content["is_classification"] = False
    elif form == "prompt":
        content["answer"] = words
    text = json.dumps(content) if form else words
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"completion_tokens": 40, "prompt_tokens": len(prompt) // 4}}


if __name__ == "__main__":
    main()
