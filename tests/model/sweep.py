"""Tries every causal language model of the installed transformers, and writes down in which layout each is trained."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from sft.model.layout import CannotTryError, try_layout

TABLE = Path(__file__).parents[2] / "docs" / "MODELS.md"
CLASSES: dict[str, str] = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Family, as `model_type` of a config.json, → the class that is loaded."""
NO_REASON = "–"
RULE = "|---|---|---|---|"

# What a config.json of the family says, where the defaults of its config class are no model.
GIVEN: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 4},
    "xmod": {"default_language": "en_XX"},
}

_HEAD = """# Models

Which families of causal language models are trained, and how their examples lie before the model: **packed** end to
end in one row, which is the fastest, or **one example** a row with padding behind it. `train.packing: auto` takes
the first of the two that is right. None is looked up in a list: a tiny random model of the class is tried before
any machine is held, and the real one again at the start of each stage (`sft.model.packing_probe`). Other tokens in
one example must leave the loss of all others as it was, tokens may not see what is behind them, and the loss of
each example must be that of transformers' own forward pass.

It is tried on the CPU in float32, where rounding is far below any leak, so kernels of a GPU that would keep the
states of packed examples apart are not made use of. Families of which no tiny model could be made are tried when a
run starts. `make models` checks the table, `make models ARGS=--pin` writes it anew.

"""


class Row(NamedTuple):
    """One family."""

    family: str
    name: str
    """Of the class."""
    layout: str
    why: str


def try_family(family: str) -> Row:
    """What becomes of a family."""
    logging.set_verbosity_error()
    name = CLASSES[family]
    try:
        config = CONFIG_MAPPING[family](**GIVEN.get(family, {}))
    except Exception:
        return Row(family, name, "tried at the start", "the defaults of its config are no model")
    try:
        packed = try_layout(config, "packed")
        if packed is None:
            return Row(family, name, "packed", "")
        alone = try_layout(config, "one_example")
    except CannotTryError as error:
        return Row(family, name, "tried at the start", _in_words(str(error)))
    return (
        Row(family, name, "one example", _in_words(packed))
        if alone is None
        else Row(family, name, "refused", _in_words(alone))
    )


def _in_words(reason: str) -> str:
    """Without what depends on the machine."""
    words = re.sub(r" (by )?[\d.e+-]+ nats a token", "", reason)
    return re.sub(r"\s+", " ", words).replace("|", "/")[:120].strip()


def render(rows: list[Row]) -> str:
    """The page."""
    counts = {layout: sum(row.layout == layout for row in rows) for layout in dict.fromkeys(row.layout for row in rows)}
    total = ", ".join(f"{layout} {count}" for layout, count in sorted(counts.items()))
    lines = ["| family | class | layout | why not packed, or why not at all |", RULE]
    lines += [f"| {row.family} | {row.name} | {row.layout} | {row.why or NO_REASON} |" for row in rows]
    return (
        f"{_HEAD}transformers {transformers.__version__}, {len(rows)} families: {total}.\n\n" + "\n".join(lines) + "\n"
    )


def read_table() -> dict[str, Row]:
    """The rows of the page, by family."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines[lines.index(RULE) + 1 :]]
    return {family: Row(family, name, layout, "" if why == NO_REASON else why) for family, name, layout, why in cells}
