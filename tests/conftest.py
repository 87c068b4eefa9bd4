"""What tests of several folders build on: small tokenizers, a tiny model and two files of records, all made here.

Nothing is downloaded and nothing lies outside pytest's own temporary folder.
"""

import gc
import importlib
import json
import os
import random
import shlex
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sft.engine.lean_deepspeed import lean_deepspeed
from sft.paused_collector import paused_collector
from tests.forked_ranks import begin_warm_process, warm_command
from tests.scheduling import GroupScheduling, longest_first

if TYPE_CHECKING:
    from tests.s3_server import S3Server

# Read when `datasets` and `huggingface_hub` are imported, which a test file may do first.
os.environ["HF_HUB_OFFLINE"] = "1"

# The tests are of CPUs, also on a machine that has GPUs; the processes that they start inherit this.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["DS_ACCELERATOR"] = "cpu"
# Triton's kernels run on the CPU too, through its interpreter. Read when triton is imported.
os.environ["TRITON_INTERPRET"] = "1"

# Ray's workers would give way to all else, and so wait for minutes where other tests run beside them.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (so Ray calls it)

# A script's background command ignores it, and so would all processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, and no time limit for one of them: other processes share the machine. More are tried
# with HYPOTHESIS_PROFILE=search.
_NO_LIMITS = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("sft", max_examples=60, derandomize=True, **_NO_LIMITS)
settings.register_profile("search", max_examples=2000, **_NO_LIMITS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "sft"))

TEMPLATES = Path(__file__).parent / "data" / "templates"
"""Chat templates in the style of the well-known families, one Jinja file each."""

_WORDS = (
    "amber basin cedar delta ember fjord glade harbour island juniper kettle lantern meadow needle orchard pebble "
    "quarry river saddle timber umbrella valley willow yarrow zephyr bell cart drum echo fern gate hill iris jar"
)
WORDS = _WORDS.split()

_SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<s>", "</s>"),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
)
_BOS_AND_EOS = {
    "inst": ("<s>", "</s>"),
    "headers": ("<|begin_of_text|>", "<|eot_id|>"),
    "headers_tools": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "model_role": ("<bos>", "<eos>"),
}
# Added behind the trained vocabulary, which is the same for all.
_OWN_SPECIAL_TOKENS = {
    "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "separator": ("<|im_sep|>",),
    "mistral": ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pin", action="store_true", help="write what tests are held to: the trajectory, docs/MODELS.md")
    parser.addoption("--all-families", action="store_true", help="try every family of models, not only a dozen")
    parser.addoption("--chaos", type=int, default=1, help="random schedules of faults of each kind")
    parser.addoption("--chaos-table", type=Path, help="a file to which a line is added for each schedule that passed")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not one of several processes, which have theirs from the first
        begin_warm_process()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """The processes of tests are forks of the warm one, too: it has imported half of what files of tests import."""
    for spec in specs:
        spec.python = shlex.join(warm_command(str(Path(__file__).with_name("forked_python.py"))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """What modules make stays, so the collector of reference cycles looks at it neither meanwhile nor later."""
    with paused_collector():
        if hasattr(session.config, "workerinput"):  # one of several processes, which collects all files
            with lean_deepspeed():
                importlib.import_module("deepspeed.runtime.zero")
        yield
    gc.freeze()


LONG_SECONDS = 600
"""That a long test may take, unless it says itself how many."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))
    if hasattr(config, "workerinput"):  # one of several processes
        items[:] = longest_first(items)


TokenizerDir = Callable[[str | None], Path]


class SmallRecords(NamedTuple):
    """Two files of JSON lines: 120 records of instruction, input, output, task; 60 of prompt, completion."""

    instructions: Path
    prompts: Path


@pytest.fixture(scope="session", autouse=True)
def _hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`datasets` keeps its tables in the temporary folder, and what looks at a model is a fork of the warm process."""
    import datasets  # noqa: PLC0415  (seconds; only where tests run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        patch.setattr("launcher.layout_check.own_module", warm_command)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
        yield


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> TokenizerDir:
    """A function from a template's name to the Hugging Face folder of a tokenizer with it.

    `None` gives a tokenizer without a template, `"gpt2"` one that has neither a template nor any special token but
    `<|endoftext|>`.
    """
    root = tmp_path_factory.mktemp("tokenizers")

    @cache
    def make(template: str | None) -> Path:
        folder = root / (template or "without_template")
        write_tokenizer(folder, template)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights, always the same, and the ChatML tokenizer in one folder."""
    import torch  # noqa: PLC0415  (seconds; only tests of models need it)
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("tiny_model")
    vocab_size = write_tokenizer(folder, "chatml")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=_SPECIAL_TOKENS.index("<|im_end|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator["S3Server"]:
    """Object storage behind the real protocol, one server for all tests."""
    from tests.s3_server import running_s3_server  # noqa: PLC0415  (a second; only tests of object storage need it)

    with running_s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def small_records(tmp_path_factory: pytest.TempPathFactory) -> SmallRecords:
    """Records of 10 to 120 tokens whose answers follow from their prompts, so that a model can learn them."""
    folder = tmp_path_factory.mktemp("records")
    files = SmallRecords(folder / "instructions.jsonl", folder / "prompts.jsonl")
    write_json_lines(files.instructions, instruction_records())
    write_json_lines(files.prompts, prompt_records())
    return files


def instruction_records() -> list[dict[str, str]]:
    """120 records of four tasks: copy 54, reverse 33, count 21, sort 12."""
    rng = random.Random(1)
    tasks = ["copy"] * 54 + ["reverse"] * 33 + ["count"] * 21 + ["sort"] * 12
    rng.shuffle(tasks)
    records = []
    for task in tasks:
        words = rng.choices(WORDS, k=rng.randint(1, 48))
        answers = {"copy": words, "reverse": words[::-1], "count": [str(len(words))], "sort": sorted(words)}
        text = {"input": " ".join(words), "output": " ".join(answers[task])}
        records.append({"instruction": f"{task.capitalize()} the words.", **text, "task": task})
    return records


def prompt_records() -> list[dict[str, str]]:
    """60 records of one task: what comes next in the list of words."""
    rng = random.Random(2)
    records = []
    for i in range(60):
        start, length = rng.randrange(len(WORDS) - 24), 1 + i % 12
        words = WORDS[start : start + 2 * length]
        records.append({"prompt": " ".join(words[:length]), "completion": " ".join(words[length:])})
    return records


def write_json_lines(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")


def write_tokenizer(folder: Path, template: str | None) -> int:
    """Train a byte-level BPE of 600 tokens, save it with the template of that name, and return its size."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  (seconds)

    special_tokens = _SPECIAL_TOKENS[:1] if template == "gpt2" else _SPECIAL_TOKENS
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer)
    bos, eos = _BOS_AND_EOS.get(template or "", (None, "<|endoftext|>" if template in (None, "gpt2") else "<|im_end|>"))
    if bos:  # set before every text, unless it is the rendering of a template: that writes its own
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )
    if template == "think":
        tokenizer.add_tokens(["<think>", "</think>"])  # ordinary tokens, as they are in Qwen3
    tokenizer.add_tokens([AddedToken(token, special=True) for token in _OWN_SPECIAL_TOKENS.get(template or "", ())])
    if template not in (None, "gpt2"):
        tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _corpus() -> Iterator[str]:
    """Deterministic English-like text with the words of the records and of the templates."""
    for record in (*instruction_records(), *prompt_records()):
        yield "\n\n".join(record.values())
    rng = random.Random(3)
    endings = ("", "s", "ing", "ed", ".", ",", "!\n", ":\n\n")
    for _ in range(400):
        yield " ".join(rng.choice(WORDS) + rng.choice(endings) for _ in range(12))
    yield "system\nuser\nassistant\nmodel\nYou are a helpful assistant. [INST] [/INST] <<SYS>>\n<</SYS>>\n\n" * 20
