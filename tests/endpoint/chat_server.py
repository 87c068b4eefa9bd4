"""A server of OpenAI's chat completions on loopback: a function answers, and faults are asked for in the prompt."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Respond = Callable[[Mapping[str, Any]], str | dict[str, Any]]
"""Gives a text, or a whole answer, or raises `Trouble`."""
KEY = "sk-secret-of-the-tests"


class Trouble(Exception):
    """The server answers with status 500."""


@dataclass
class ChatServer:
    """What it was asked, and what it does."""

    respond: Respond
    models: list[str] = field(default_factory=lambda: ["tiny"])
    key: str = ""
    status: int = 0
    """Of every answer to a chat; 0: as the prompt says."""
    num_well: int = 0
    """After so many requests."""
    seconds: float = 0.0
    """That every answer takes."""
    num_cut_off: int = 0
    """The first so many answers break off."""
    structured: bool = True
    refused_schema: Any = None
    """It knows `response_format`, but not this schema."""
    tokenize: Callable[[Mapping[str, Any]], list[int]] | None = None
    """What `/tokenize` says, as vLLM has it; None: there is no such thing."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _num_now: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def enter(self, content: dict[str, Any]) -> int:
        """Count a request; how often it has come."""
        with self._lock:
            self.asked.append(content)
            self._num_now += 1
            self.most_at_once = max(self.most_at_once, self._num_now)
            return sum(one["messages"] == content["messages"] for one in self.asked)

    def leave(self) -> None:
        with self._lock:
            self._num_now -= 1


def _schema(content: Mapping[str, Any]) -> Any:
    return content["response_format"]["json_schema"]["schema"]


class _Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chat: ChatServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.chat.key and self.headers.get("Authorization") != f"Bearer {self.chat.key}":
            self._send(401, {"error": {"message": f"wrong key {self.headers.get('Authorization')}"}})
        else:
            self._send(200, {"data": [{"id": name} for name in self.chat.models]})

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            known = self.chat.tokenize
            self._send(200, {"tokens": known(content)}) if known else self._send(404, {"detail": "Not Found"})
            return
        count = self.chat.enter(content)
        try:
            time.sleep(self.chat.seconds)
            self._answer(content, count)
        except Trouble:
            self._send(500, {"error": {"message": "trouble"}})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.chat.leave()

    def _answer(self, content: dict[str, Any], count: int) -> None:
        prompt = str(content["messages"][-1]["content"])
        if self.chat.status and len(self.chat.asked) > self.chat.num_well:
            self._send(self.chat.status, {"error": {"message": "by script"}})
        elif len(self.chat.asked) <= self.chat.num_cut_off:
            self._cut_off()
        elif content["model"] not in self.chat.models:
            self._send(404, {"error": {"message": "no such model"}})
        elif "response_format" in content and not self.chat.structured:
            self._send(400, {"error": {"message": "response_format is not known"}})
        elif "response_format" in content and _schema(content) == self.chat.refused_schema:
            self._send(400, {"error": {"message": "this schema is not supported"}})
        elif prompt == "busy" and count == 1:
            self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.3"})
        elif prompt == "trouble" and count == 1:
            self._send(500, {"error": {"message": "trouble"}})
        elif prompt == "hang up" or (prompt == "hang up once" and count == 1):
            self.close_connection = True
        elif prompt == "half" or (prompt == "half once" and count == 1):
            self._cut_off()
        elif prompt == "slow":
            time.sleep(1.2)
        elif prompt == "drip":
            self._head(200, 1000)
            for _ in range(12):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif prompt == "garbage":
            self._send_bytes(200, b"<!doctype html><p>Hello")
        elif prompt == "huge":
            self._send_bytes(200, b'{"choices": "' + b"x" * 300_000)
        elif prompt == "no choices":
            self._send(200, {"choices": []})
        elif prompt == "no text":
            self._send(200, _completion(None))
        elif prompt == "strange end":
            self._send(200, _completion("x", "whatever"))
        elif prompt == "filtered":
            self._send(200, FILTERED)
        elif prompt == "no calls":
            self._send(200, _completion("x", "tool_calls"))
        elif prompt == "too long":
            self._send(200, _completion("x", num_tokens=content["max_tokens"] + 1))
        elif prompt == "refused":
            self._send(400, {"error": {"message": f"too long a prompt, and {KEY}"}})
        else:
            answer = self.chat.respond(content)
            if isinstance(answer, str):
                answer = _completion(answer, num_tokens=min(len(answer.split()) + 1, content["max_tokens"]))
            self._send(200, answer)

    def _cut_off(self) -> None:
        self._head(200, 1000)
        self.wfile.write(b'{"choices": [')
        self.close_connection = True

    def _send(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(content).encode(), headers)

    def _send_bytes(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, len(body), headers)
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


def _completion(
    text: str | None, finish: str = "stop", num_tokens: int = 1, num_prompt_tokens: int = 3
) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"completion_tokens": num_tokens, "prompt_tokens": num_prompt_tokens}}


FILTERED = _completion(None, "content_filter", 900, num_prompt_tokens=100)
"""An answer of no use that has to be paid."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # of connections that nobody has taken yet; more of them wait a second


@contextmanager
def chat_server(respond: Respond = lambda content: "fine", **about: Any) -> Iterator[ChatServer]:
    """The server, for as long as the context is open."""
    chat = ChatServer(respond, **about)
    scripted = type("Scripted", (_Scripted,), {"chat": chat})
    with _Server(("127.0.0.1", 0), scripted) as server:
        chat.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield chat
        finally:
            server.shutdown()
            thread.join()
