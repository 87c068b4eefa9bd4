"""How many drafts a second `sft construct` judges and writes once all are answered, and in how much memory.

    OMP_NUM_THREADS=1 python -m benchmarks.construction --filters 100000

Nobody is asked: first a log of so many requests is written. Prompts and answers have the lengths of Dolly's, in the
words of Python's documentation (`benchmarks.made_data`); so have the records that are held out. Then, each in a process
of its own:

    form, refusals, heldout, copies    one filter alone: from drafts in a file to their outcomes
    filters                            the four together
    command                            all that a repeated `sft construct` does: it reads and replays the log, filters,
                                       and writes records, manifest and page

`CPU` is that of the process and of those it has started, for each draft. `memory` is the resident memory of the process
before the first draft, and how much more it was at the most; `others` is the largest one that it has started.
"""

import hashlib
import json
import multiprocessing
import pickle
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from benchmarks.made_data import dolly_pair, write_data
from benchmarks.resident_memory import forget_peak, memory_now, memory_peak
from sft.config import DataConfig, HoldoutConfig, ModelConfig, SourceConfig
from sft.config_construction import ConstructConfig
from sft.construction.asking import Asking, Job, Result
from sft.construction.construction import construct_all
from sft.construction.filters.chain import filtering
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.held_out_texts import read_held_out
from sft.construction.filters.registry import read_filters
from sft.construction.folder import ConstructionFolder
from sft.construction.page import write_page
from sft.construction.prompts import Prompts
from sft.construction.recipes.recipe import Seed
from sft.construction.recipes.registry import read_recipes
from sft.construction.request_log import open_log
from sft.construction.spending import Spending
from sft.construction.teacher import Ask, TeacherId
from sft.construction.work import Ended, Part, Work
from sft.data.preparation import prepare_store
from sft.data.record_pipeline import RecordPipeline
from sft.endpoint.chat import ChatReply, ChatRequest

FILTERS = {"form": True, "refusals": True, "heldout": "remove", "copies": 0.7}
NUM_TASKS = 16
NUM_HELD_OUT = 4000
SEEDS_PER_TASK = 128
_URL, _MODEL = "http://127.0.0.1:9/v1", "made"


def measure_filters(num: int, say: Callable[[str], object]) -> None:
    """Measure with so many drafts, and say it line by line."""
    with tempfile.TemporaryDirectory() as name:
        _in_process(_prepare, Path(name), num)
        for part in (*FILTERS, "filters", "command"):
            say(_in_process(_measured, Path(name), num, part))


def _in_process(what: Callable[..., object], *given: object) -> str:
    """What a new process says at its end; imports of the one before are not in its memory."""
    # One that may start others, as those of `multiprocessing.Pool` may not.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return str(pool.submit(what, *given).result())


class _Used(NamedTuple):
    """What this process has used so far."""

    seconds: float
    cpu: float
    """With that of processes that have ended."""
    memory: float
    """Now, in MiB."""

    @classmethod
    def now(cls) -> "_Used":
        all_of_them = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(one.ru_utime + one.ru_stime for one in all_of_them)
        return cls(time.perf_counter(), cpu, memory_now())

    @classmethod
    def at_first(cls) -> "_Used":
        """The same where measuring begins."""
        forget_peak()
        return cls.now()


def _measured(folder: Path, num: int, part: str) -> str:
    begun, num_kept = (_command if part == "command" else _filter)(folder, num, part)
    ended = _Used.now()
    peak, others = memory_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    seconds, cpu = ended.seconds - begun.seconds, ended.cpu - begun.cpu
    speed = f"{seconds:8.2f} s  {num / seconds:8,.0f} drafts/s  CPU {1e3 * cpu / num:5.2f} ms"
    memory = f"memory {begun.memory:4,.0f} + {peak - begun.memory:4,.0f} MiB, others {others:4,.0f}"
    return f"{part:10}{num:10,} drafts  {speed}  kept {num_kept:9,}  {memory}"


def _filter(folder: Path, num: int, part: str) -> tuple[_Used, int]:
    off = {"form": False, "copies": False}
    given = FILTERS if part == "filters" else {**off, part: FILTERS[part]}
    construct, work = _job(folder, num)
    with tempfile.TemporaryFile(dir=folder) as file:
        with open_log(ConstructionFolder(construct.out).log, Spending(construct.budget)) as log:
            asking = Asking([_Instant()], log, log.spending)
            for ended in work.outcomes(asking.replay):
                pickle.dump(ended, file)
        del log, asking
        file.seek(0)
        with filtering(read_filters(given), _around(folder, construct, work)) as passing:
            begun = _Used.at_first()
            for _ in passing.outcomes(_read(file)):
                pass
            return begun, passing.num_kept


def _read(file: IO[bytes]) -> Iterator[Ended]:
    with suppress(EOFError):
        while True:
            yield pickle.load(file)


def _command(folder: Path, num: int, part: str) -> tuple[_Used, int]:
    del part
    construct, work = _job(folder, num)
    around = _around(folder, construct, work)
    begun = _Used.at_first()
    done = construct_all(work, construct, around=around)
    assert done.error is None
    write_page(ConstructionFolder(construct.out), around.seeds)
    return begun, done.counts.kept


def _prepare(folder: Path, num: int) -> None:
    """Write what is held out, a tokenizer, and the log."""
    from benchmarks.made_models import write_tokenizer  # noqa: PLC0415  (it needs torch)

    write_tokenizer(folder / "tokenizer", write_data(folder / "data.jsonl", "dolly", NUM_HELD_OUT, seed=1))
    prepare_store(*_given(folder))
    construct, work = _job(folder, num)
    with open_log(ConstructionFolder(construct.out).log, Spending(construct.budget)) as log:
        asking = Asking([_Instant()], log, log.spending)
        for _ in work.outcomes(lambda job: _answered(asking, job)):
            pass


def _job(folder: Path, num: int) -> tuple[ConstructConfig, Work]:
    recipe = {"kind": "few_shot", "num": num // NUM_TASKS, "tasks": "all"}
    teacher = {"endpoint": _URL, "model": _MODEL}
    construct = ConstructConfig.model_validate(
        {"teacher": teacher, "recipes": [recipe], "filters": FILTERS, "out": folder / "made"}
    )
    rng = np.random.default_rng(2)
    parts = [
        Part(one, f"task {i}", one.num, [_seed(rng) for _ in range(SEEDS_PER_TASK)])
        for one in read_recipes(construct.recipes)
        for i in range(NUM_TASKS)
    ]
    return construct, Work(parts, Prompts(), run_seed=17)


def _seed(rng: np.random.Generator) -> Seed:
    prompt, answer = dolly_pair(rng)
    return Seed(hashlib.sha256(prompt.encode()).hexdigest()[:24], prompt, answer, "by hand")


def _given(folder: Path) -> tuple[DataConfig, ModelConfig]:
    source = SourceConfig(name="data", path=str(folder / "data.jsonl"), task="data")
    holdout = HoldoutConfig(share=0.02)
    data = DataConfig(sources=(source,), max_len_tokens=16_384, holdout=holdout, cache_dir=folder / "cache")
    return data, ModelConfig(path=str(folder / "tokenizer"))


def _around(folder: Path, construct: ConstructConfig, work: Work) -> Surroundings:
    data, model = _given(folder)
    store, tokenizer = prepare_store(data, model), RecordPipeline(data, model).tokenizer
    seeds = [(part.task, seed) for part in work.parts for seed in part.seeds]
    return Surroundings(
        construct.out, seeds, of_held_out=lambda: read_held_out(store, data.holdout, tokenizer.plain).of
    )


class _Instant:
    """A `Teacher` that is never asked: what it says is in the log."""

    id, title, at_once = TeacherId(_URL, _MODEL), f"{_MODEL} at {_URL}", 1

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        raise AssertionError("nobody is asked")
        yield


def _answered(asking: Asking, job: Job) -> Result:
    """The end of a script whose requests are answered at once."""
    played = asking.play(job)
    try:
        asked = next(played)
        while True:
            asked = played.send(_reply(asked.request))
    except StopIteration as ended:
        result: Result = ended.value
        return result


def _reply(request: ChatRequest) -> ChatReply:
    digest = hashlib.sha256(str(request.messages).encode()).digest()
    prompt, answer = dolly_pair(np.random.default_rng(int.from_bytes(digest[:8])))
    text = json.dumps({"prompt": prompt, "answer": answer})
    return ChatReply(text, num_tokens=len(text) // 4, num_prompt_tokens=len(str(request.messages)) // 4)
