"""docs/MODELS.md says what becomes of each family and of its export: a dozen are tried here, all with `make models`."""

from pathlib import Path

import pytest

from tests.conftest import TokenizerDir
from tests.model.sweep import (
    CLASSES,
    EXPORTED_OTHERWISE,
    LAYOUTS,
    TABLE,
    read_table,
    render,
    try_export,
    try_family,
)

DOZEN = {
    "llama": "packed",
    "qwen3": "packed",
    "mixtral": "packed",
    "deepseek_v3": "packed",
    "deepseek_v32": "one example",
    "doge": "one example",
    "gemma3_text": "packed",
    "gemma2": "packed",
    "gpt_oss": "packed",
    "bloom": "one example",
    "codegen": "one example",
    "xglm": "one example",
    "falcon": "one example",
    "mamba": "one example",
    "granitemoehybrid": "one example",
    "lfm2": "one example",
    "bert": "refused",
    "modernbert-decoder": "refused",
    "deepseek_v4": "refused",
}
"""Of each kind: attention that packs, that chooses tokens or bends its scores, that has sinks, that is never asked for;
states and convolutions; a model that is not causal, one that does more to its logits than is known, and one of which a
part needs long examples."""

EXPORTED = ("gpt_oss", "granitemoehybrid")
"""Of each kind of weights: experts that are fused, sinks, biases, states."""
MORE_EXPORTED = ("llama", "mixtral", "deepseek_v3", "gemma3_text", "bloom", "mamba")

DEAR = ("deepseek_v4", "mamba")
"""They take far longer than the others: states one by one, and two layouts of long examples."""


def test_every_family_is_in_the_docs(request: pytest.FixtureRequest) -> None:
    """With `--all-families` they are all tried, and with `--pin` the page is written."""
    if request.config.getoption("--all-families"):
        page = render([try_family(family) for family in sorted(CLASSES)])
        if request.config.getoption("--pin"):
            TABLE.write_text(page, encoding="utf-8")
        assert TABLE.read_text(encoding="utf-8") == page
    assert sorted(read_table()) == sorted(CLASSES)


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[pytest.mark.long] if family in DEAR else []) for family in DOZEN]
)
def test_what_becomes_of_a_family_is_as_the_docs_say(family: str) -> None:
    row = try_family(family)
    assert row.layout == DOZEN[family], row
    assert read_table()[family] == row


@pytest.mark.parametrize(
    "exported", [EXPORTED, pytest.param(MORE_EXPORTED, marks=pytest.mark.long)], ids=["few", "more"]
)
def test_every_trained_family_is_exported_as_transformers_would_save_it(
    exported: tuple[str, ...], request: pytest.FixtureRequest, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    """But for those that are listed, exactly. With `--all-families` all are tried."""
    every = request.config.getoption("--all-families") and exported is EXPORTED
    families = sorted(CLASSES) if every else exported
    rows = [row for family, row in read_table().items() if family in families and row.layout in LAYOUTS]
    found = {row.family: try_export(row, tokenizer_dir("chatml"), tmp_path / row.family) for row in rows}
    assert {family: reason for family, reason in found.items() if reason} == {
        family: reason for family, reason in EXPORTED_OTHERWISE.items() if family in families
    }
