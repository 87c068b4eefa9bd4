"""Runs an answer's code and its tests, inside the sandbox, from a task on its standard input; imports nothing of sft.

It tells on descriptor 3 what failed, or the word that the task holds if nothing did: code that ends the process early
has not passed its tests.
"""

import json
import os
import sys
import types

REPORT = 3
_MAX_CHARS = 300


def main() -> None:
    """Run the code, the set-up and the tests, each behind the other, in one module."""
    process = os.getpid()
    with open(0, closefd=False, encoding="utf-8") as file:
        task = json.load(file)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    # A module by a name, as dataclasses and pickle look it up. Not `__main__`: a program would wait for input there.
    module = sys.modules["answer"] = types.ModuleType("answer")
    # Bound before the code runs, which may replace the built-in ones.
    translate, run = compile, exec
    named = {"the code": task["code"], "the set-up": task["setup"]}
    named |= {f"test {number}": test for number, test in enumerate(task["tests"], start=1)}
    for name, text in named.items():
        try:
            run(translate(text, f"<{name}>", "exec"), module.__dict__)
        except BaseException as error:  # SystemExit too: what the tests need is not there
            if os.getpid() != process:  # the code forked; its children come here as well
                os._exit(1)
            _tell({"failed": f"{name} raised {_described(error, text)}", "memory": isinstance(error, MemoryError)})
            return
    if os.getpid() == process:
        _tell({"passed": task["word"]})
    os._exit(0)


def _described(error: BaseException, text: str) -> str:
    try:
        told = str(error)
    except BaseException:  # it is the answer's own class
        told = ""
    shown = f"{type(error).__name__}: {told}" if told else type(error).__name__
    # An assertion says nothing of what it asserts.
    return f"{shown}: {text}"[:_MAX_CHARS] if isinstance(error, AssertionError) and not told else shown[:_MAX_CHARS]


def _tell(content: dict[str, object]) -> None:
    os.write(REPORT, json.dumps(content).encode())
    # Threads that the code has started may never end.
    os._exit(0)


if __name__ == "__main__":
    main()
