"""Tries every causal language model of the installed transformers: in which layout each is trained, and its export."""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from sft.data.collate import Layout
from sft.errors import UserError
from sft.model.layout import try_layout
from sft.model.packing_probe import ordinary_token_ids, probe_batch
from sft.model.tiny_model import CannotTryError, tiny_config, tiny_model
from tests.checkpoint.exported import difference, export_to, saved_by_transformers, train_on

TABLE = Path(__file__).parents[2] / "docs" / "MODELS.md"
CLASSES: dict[str, str] = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Family, as `model_type` of a config.json, → the class that is loaded."""
NO_REASON = "–"
RULE = "|---|---|---|---|"
HEADING = "## Families\n\n"
LAYOUTS: dict[str, Layout] = {"packed": "packed", "one example": "one_example"}
"""As the page calls them."""

EXPORTED_OTHERWISE: dict[str, str] = {}
"""Families whose exported folder is not what transformers would save, and in what it differs."""

# What a config.json of the family says, where the defaults of its config class are no model.
GIVEN: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "emu3": {
        "architectures": ["Emu3ForConditionalGeneration"],
        "vocabulary_map": {"<image>": 1, "<|extra_200|>": 2, "<|visual token 000000|>": 3},
    },
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "ministral": {"head_dim": 16},
    "mllama": {"architectures": ["MllamaForConditionalGeneration"]},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 4},
    "xmod": {"default_language": "en_XX"},
}

_HEAD = """\
`make models` checks this table, `make models ARGS=--pin` writes it anew. The export is tried too, for each family that
is packed or laid one example a row: a tiny model is trained for two steps and exported, and transformers saves the same
weights. Names, shapes, dtypes and values of all tensors and the config.json are equal{exceptions}.

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
    given = GIVEN.get(family, {})
    name = given.get("architectures", [CLASSES[family]])[0]
    try:
        config = CONFIG_MAPPING[family](**given)
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


def try_export(row: Row, tokenizer: Path, folder: Path) -> str | None:
    """In what the exported folder of a tiny model, trained in its layout, differs from the one of transformers.

    Args:
        row: the family, one that is trained.
        tokenizer: saved beside it.
        folder: where all is written; it is deleted in the end.
    """
    logging.set_verbosity_error()
    small = tiny_config(CONFIG_MAPPING[row.family](**GIVEN.get(row.family, {})))
    try:
        base = folder / "base"
        tiny_model(small, None).save_pretrained(base)
        engine = train_on(probe_batch(ordinary_token_ids(small), LAYOUTS[row.layout]), base, "float32")
        found = export_to(engine, tokenizer, folder / "found", "float32")
        assert str(difference(found, base)).startswith("values of tensors"), "nothing was trained"
        return difference(found, saved_by_transformers(engine, base, "float32", folder / "expected"))
    except UserError as error:
        return _in_words(str(error))
    finally:
        shutil.rmtree(folder)


def _in_words(reason: str) -> str:
    """Without what depends on the machine."""
    words = re.sub(r" (by )?[\d.e+-]+ nats a token", "", reason)
    return re.sub(r"\s+", " ", words).replace("|", "/").strip()


def render(rows: list[Row]) -> str:
    """The page: what stands before the table's heading stays as it is."""
    counts = {layout: sum(row.layout == layout for row in rows) for layout in dict.fromkeys(row.layout for row in rows)}
    total = ", ".join(f"{layout} {count}" for layout, count in sorted(counts.items()))
    lines = ["| family | class | layout | why not packed, or why not at all |", RULE]
    lines += [f"| {row.family} | {row.name} | {row.layout} | {row.why or NO_REASON} |" for row in rows]
    versions = f"transformers {transformers.__version__}, {len(rows)} families: {total}."
    before = TABLE.read_text(encoding="utf-8").partition(HEADING)[0]
    return f"{before}{HEADING}{_HEAD.format(exceptions=_exceptions())}{versions}\n\n" + "\n".join(lines) + "\n"


def _exceptions() -> str:
    listed = "; ".join(f"{family} ({reason})" for family, reason in sorted(EXPORTED_OTHERWISE.items()))
    return f", but for: {listed}" if listed else ""


def read_table() -> dict[str, Row]:
    """The rows of the page, by family."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines[lines.index(RULE) + 1 :]]
    return {family: Row(family, name, layout, "" if why == NO_REASON else why) for family, name, layout, why in cells}
