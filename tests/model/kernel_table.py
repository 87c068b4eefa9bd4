"""Which fused kernels the families of the installed transformers get: docs/KERNELS.md."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.utils import logging

from sft.model.kernels import DEFINITIONS, count_kernels, fuse, without_kernels
from sft.model.tiny_model import tiny_config, tiny_model
from tests.model.sweep import GIVEN
from tests.model.sweep import read_table as read_layouts

TABLE = Path(__file__).parents[2] / "docs" / "KERNELS.md"
HEADING = "## Families\n\n"
RULE = "|---|---|"
_ORDER = ("norm", "rotary", "gated MLP", "gate of experts")
_NOT_TRIED = "not tried"


def kernels_of(family: str) -> str:
    """The parts of a tiny model in bfloat16 that get a kernel; its logits are the same to the bit."""
    if read_layouts()[family].layout not in ("packed", "one example"):
        return _NOT_TRIED
    logging.set_verbosity_error()
    model: Any = tiny_model(tiny_config(CONFIG_MAPPING[family](**GIVEN.get(family, {}))), None).to(torch.bfloat16)
    fuse(model, DEFINITIONS, torch.device("cpu"))
    put = count_kernels(model)
    ids = torch.arange(9)[None] + 1
    with torch.no_grad():
        try:
            found = model(input_ids=ids, use_cache=False).logits
        except RuntimeError:  # a few do not run in bfloat16 after such a change of dtype
            return _NOT_TRIED
        with without_kernels(model):
            assert torch.equal(found, model(input_ids=ids, use_cache=False).logits)
    return ", ".join(part for part in _ORDER if put[part]) or "none"


def render(kernels: dict[str, str]) -> str:
    """The page: what stands before the table's heading stays as it is."""
    groups: dict[str, list[str]] = {}
    for family, parts in kernels.items():
        groups.setdefault(parts, []).append(family)
    lines = ["| kernels | families |", RULE]
    lines += [f"| {parts} | {', '.join(groups[parts])} |" for parts in sorted(groups, key=lambda p: -len(groups[p]))]
    before = TABLE.read_text(encoding="utf-8").partition(HEADING)[0]
    return (
        f"{before}{HEADING}transformers {transformers.__version__}, {len(kernels)} families.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def read_table() -> dict[str, str]:
    """Family → kernels, as the page says."""
    lines = TABLE.read_text(encoding="utf-8").partition(HEADING)[2].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[lines.index(RULE) + 1 :]]
    return {family: parts for parts, families in rows for family in families.split(", ")}
