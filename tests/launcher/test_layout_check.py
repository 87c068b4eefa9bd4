"""`sft plan` and `sft prepare` refuse what `sft train` would refuse, with what of the model is on this machine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "llama3_8b_1node.yaml"
LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "vocab_size": 96}


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".cache" / "sft").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))


def quantized(folder: Path) -> None:
    method = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": method}))


def in_need_of_a_package(folder: Path) -> None:
    (folder / "own_code.py").write_text("import no_such_package\n")
    own = {"auto_map": {"AutoModelForCausalLM": "own_code.Own"}}
    (folder / "config.json").write_text(json.dumps({**LLAMA, **own}))


@pytest.mark.parametrize(
    ("verbs", "make", "expected"),
    [
        (["plan", "prepare"], quantized, "are quantized (gptq)"),
        (["prepare"], in_need_of_a_package, "needs a package that is not installed here"),
    ],
)
def test_what_train_refuses_is_refused_before(
    verbs: list[str], make: Callable[[Path], None], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    arguments = [str(CONFIG), f"model.path={tmp_path}", "model.trust_remote_code=true"]
    for verb in verbs:
        assert main([verb, *arguments]) == 2
        assert expected in capsys.readouterr().err
    # What may be installed later is not kept; and nothing was prepared.
    kept = [] if make is in_need_of_a_package else ["layouts"]
    assert [path.name for path in (tmp_path / ".cache" / "sft").iterdir()] == kept


def test_missing_weights_are_noted_and_what_lies_there_later_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    arguments = ["plan", str(CONFIG), f"model.path={tmp_path}", "--json"]
    assert main(arguments) == 0
    notes = json.loads(capsys.readouterr().out)["findings"]
    assert f"model: the weights of {tmp_path} are not on this machine. The training needs them." in notes
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert main(arguments) == 2
    assert "is a pointer of Git LFS" in capsys.readouterr().err


def test_what_was_found_is_kept_where_it_can_be_and_read_where_it_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized(tmp_path)
    layouts = tmp_path / ".cache" / "sft" / "layouts"
    arguments = ["plan", str(CONFIG), f"model.path={tmp_path}"]
    layouts.touch()  # so that no folder can be made there
    assert main(arguments) == 2
    layouts.unlink()
    for _ in range(2):
        assert main(arguments) == 2
        (kept,) = layouts.iterdir()
        kept.write_text('{"layout": ')
    assert main(arguments) == 2
    assert json.loads(kept.read_text())["is_lasting"] is True
    assert capsys.readouterr().err.count("are quantized (gptq)") == 4
