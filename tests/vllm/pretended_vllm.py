"""A command that serves a tiny model as `vllm serve` does: the same options, the same answers of `/v1/completions`.

It computes with transformers, each prompt alone. With a `--fault` it computes nothing, and does what servers do wrong:
it ends `at once`, `while loading` or `after 20` answers, is `never ready`, finds its `port` taken the first time,
answers an `other prompt`, without token ids (`no ids`), or without an end (`no end`).
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TRACEBACK = """\
(EngineCore pid=7) ERROR 11-28 00:00:00 [core.py:1] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-28 00:00:00 [core.py:1] ValueError: no room for the cache
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5)   File "core.py", line 1, in start
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    for name in ("host", "port", "served-model-name", "tokenizer", "dtype", "max-model-len", "generation-config"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--uvicorn-log-level")
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--fault", default="")
    parser.add_argument("--pids")
    return parser.parse_args()


class Scripted:
    """Answers every prompt with its stop token, and with the fault."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.num_answers, self.lock = given, 0, threading.Lock()

    def answer(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ids, most = asked["prompt"], asked["max_tokens"]
        if asked["model"] != self.given.served_model_name:
            return 404, {"error": {"message": f"The model `{asked['model']}` does not exist."}}
        if len(ids) + most > int(self.given.max_model_len):
            return 400, {"error": {"message": f"maximum context length is {self.given.max_model_len} tokens"}}
        with self.lock:
            self.num_answers += 1
            if self.given.fault == "after 20" and self.num_answers > 20:
                time.sleep(0.3)  # until the others are on their way
                sys.stderr.write("RuntimeError: the engine is gone\n")
                sys.stderr.flush()
                os._exit(3)
            stops = asked["stop_token_ids"]
            written = self.written(ids, most, stops)
            finish = "stop" if written[-1] in stops else "length"
            choice: dict[str, Any] = {"finish_reason": finish, "token_ids": written, "prompt_token_ids": ids}
            if asked.get("prompt_logprobs") == 0:
                found = zip(ids[1:], self.log_probs(ids), strict=True)
                entries = [{str(token): {"logprob": value, "rank": 1, "decoded_token": "?"}} for token, value in found]
                choice["prompt_logprobs"] = [None, *entries]
        if self.given.fault == "other prompt":
            choice["prompt_token_ids"] = ids[1:]
        if self.given.fault == "no ids":
            del choice["token_ids"]
        if self.given.fault == "no end":
            choice["finish_reason"], choice["token_ids"] = "stop", [0]
        return 200, {"choices": [choice]}

    def written(self, ids: list[int], most: int, stops: list[int]) -> list[int]:
        return [stops[0] if stops else 0]

    def log_probs(self, ids: list[int]) -> list[float]:
        return [-1.0] * (len(ids) - 1)


class Computed(Scripted):
    """Answers as the model does: greedily, from all tokens again for each token, which is nothing of the project's."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch  # noqa: PLC0415  (seconds, which the faults do not need)
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        super().__init__(given)
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(given.model, dtype=getattr(torch, given.dtype)).eval()

    def written(self, ids: list[int], most: int, stops: list[int]) -> list[int]:
        found: list[int] = []
        while len(found) < most and not (found and found[-1] in stops):
            found.append(int(self.logits([*ids, *found])[-1].argmax()))
        return found

    def log_probs(self, ids: list[int]) -> list[float]:
        targets = self.torch.tensor(ids[1:])[:, None]
        return list(self.logits(ids)[:-1].float().log_softmax(-1).gather(-1, targets)[:, 0].tolist())

    def logits(self, ids: list[int]) -> Any:
        with self.torch.inference_mode():
            return self.model(self.torch.tensor([ids])).logits[0]


class Served(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: Scripted

    def log_message(self, *_: Any) -> None:
        pass

    def is_known(self) -> bool:
        known = self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"
        if not known:
            self.send(401, {"error": "Unauthorized"})
        return known

    def do_GET(self) -> None:
        if self.is_known():
            self.send(200, {"data": [{"id": self.model.given.served_model_name}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions":
            self.send(404, {"detail": "Not Found"})
        elif self.is_known():
            self.send(*self.model.answer(asked))

    def send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def main() -> None:
    given = options()
    # The engine is a process of its own, which outlives a server that is killed.
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if given.pids:
        with Path(given.pids).open("a") as file:
            file.write(f"{os.getpid()}\n{engine.pid}\n")
    tried = Path(given.pids).read_text().count("\n") // 2 if given.pids else 1
    if given.fault == "at once":
        sys.exit("error: unrecognized arguments: --fault")
    if given.fault == "port" and tried == 1:
        sys.exit("OSError: [Errno 98] Address already in use")
    if given.fault == "never ready":
        time.sleep(600)
    if given.fault == "while loading":
        sys.stderr.write(TRACEBACK)
        sys.exit(1)
    model = Scripted(given) if given.fault else Computed(given)
    Server((given.host, int(given.port)), type("Own", (Served,), {"model": model})).serve_forever()


if __name__ == "__main__":
    main()
