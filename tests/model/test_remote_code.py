"""Code that comes with a model or a tokenizer runs only where the config says so, for each of them by itself."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from sft.config import ModelConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.errors import UserError
from sft.model.loading import check_model

_MODEL_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({marker!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""
_TOKENIZER_CODE = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({marker!r}).touch()
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies code to a folder in the home folder before it runs it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """There once the code has run."""
    return tmp_path / "the code has run"


@pytest.fixture
def model_with_code(tiny_model_dir: Path, tmp_path: Path, marker: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (folder / "own_code.py").write_text(_MODEL_CODE.format(marker=str(marker)))
    own = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
    changed = {"model_type": "own", "auto_map": own}
    change(folder / "config.json", changed)
    return folder


@pytest.fixture
def tokenizer_with_code(tiny_model_dir: Path, tmp_path: Path, marker: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model_dir / name, folder)
    (folder / "own_code.py").write_text(_TOKENIZER_CODE.format(marker=str(marker)))
    auto_map = {"AutoTokenizer": [None, "own_code.OwnTokenizer"]}
    change(folder / "tokenizer_config.json", {"tokenizer_class": "OwnTokenizer", "auto_map": auto_map})
    return folder


def change(path: Path, fields: dict[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_code_of_a_model_is_not_run_unless_it_is_trusted(
    tiny_model_dir: Path, model_with_code: Path, marker: Path
) -> None:
    own_tokenizer = {"path": str(model_with_code), "tokenizer": str(tiny_model_dir)}
    with pytest.raises(UserError, match=r"If you trust that code: model\.trust_remote_code=true"):
        check_model(ModelConfig(**own_tokenizer, trust_tokenizer_code=True))
    assert not marker.exists()
    check_model(ModelConfig(**own_tokenizer, trust_remote_code=True))
    assert marker.exists()


def test_a_model_with_a_class_of_its_own_is_not_read_as_one_of_transformers(
    model_with_code: Path, marker: Path
) -> None:
    model = ModelConfig(path=str(model_with_code))
    change(model_with_code / "config.json", {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "a.OwnModel"}})
    with pytest.raises(UserError, match=r"is a OwnModel, .*LlamaForCausalLM .* model\.trust_remote_code=true"):
        check_model(model)
    # Many keep the code that they came with before transformers had their class.
    old = {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}
    change(model_with_code / "config.json", {"auto_map": old})
    check_model(model)
    assert not marker.exists()


def test_code_of_a_model_that_is_no_python_is_the_users_to_mend(model_with_code: Path) -> None:
    (model_with_code / "own_code.py").write_text("class OwnModel(:")
    with pytest.raises(UserError, match=r"SyntaxError: invalid syntax"):
        check_model(ModelConfig(path=str(model_with_code), trust_remote_code=True))


@pytest.mark.parametrize("raised", ["Exception('own words')", "SystemExit('own words')", "SystemExit(0)"])
@pytest.mark.parametrize("place", ["of the file", "of the model"])
def test_whatever_code_of_a_model_raises_is_said_in_words(model_with_code: Path, raised: str, place: str) -> None:
    code = model_with_code / "own_code.py"
    in_model = f"    def __init__(self, config):\n        raise {raised}\n"
    code.write_text(code.read_text() + (in_model if place == "of the model" else f"raise {raised}\n"))
    model = ModelConfig(path=str(model_with_code), trust_remote_code=True)
    with pytest.raises(UserError, match=raised.partition("(")[0]):
        check_model(model)


def test_whatever_code_of_a_tokenizer_raises_is_said_in_words(tiny_model_dir: Path, tokenizer_with_code: Path) -> None:
    (tokenizer_with_code / "own_code.py").write_text("raise SystemExit('own words')")
    model = ModelConfig(path=str(tiny_model_dir), tokenizer=str(tokenizer_with_code), trust_tokenizer_code=True)
    with pytest.raises(UserError, match="no tokenizer can be loaded .*SystemExit: own words"):
        load_tokenizer(model)


def test_code_of_another_tokenizer_is_not_run_because_the_model_is_trusted(
    tiny_model_dir: Path, tokenizer_with_code: Path, marker: Path
) -> None:
    named = {"path": str(tiny_model_dir), "tokenizer": str(tokenizer_with_code)}
    with pytest.raises(UserError, match=r"If you trust that code: model\.trust_tokenizer_code=true"):
        load_tokenizer(ModelConfig(**named, trust_remote_code=True))
    assert not marker.exists()
    load_tokenizer(ModelConfig(**named, trust_tokenizer_code=True))
    assert marker.exists()
