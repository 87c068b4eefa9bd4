"""The card of an exported model: README.md, as the Hub shows it. What is not known is not said.

It holds no path of this machine but the last parts of folders: a card is made to be published.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

import sft
from sft.absolute_paths import may_be_hub_id
from sft.atomic_files import read_json
from sft.config import BudgetConfig, SftConfig
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.evaluation.made_data import made_of_models, made_rows
from sft.evaluation.scores import read_evaluation
from sft.markdown import Markdown, markdown_environment
from sft.printable import counted
from sft.run_folder import RunFolder, StageFolder
from sft.url_secrets import without_secrets


def model_card(config: SftConfig, store: TokenStore, stage: StageFolder, step: int, is_end: bool) -> str:
    """The card of the model of a stage after so many steps.

    Args:
        config: of the run.
        store: that it trains on.
        stage: the stage's folder in the run folder.
        step: of the stage.
        is_end: whether the stage ends there.
    """
    run = RunFolder(config.run.dir)
    manifest = _manifest(run)
    made = made_rows(made_of_models(manifest))
    return (
        markdown_environment("sft.evaluation")
        .get_template("model_card.md.j2")
        .render(
            metadata=Markdown(_metadata(config, any(row.warning for row in made))),
            name=config.run.name,
            warnings=[row.warning for row in made if row.warning],
            base=_shown_path(config.model.path, "model"),
            stage=stage.name,
            steps=counted(step, "step"),
            sources=[_source(*pair) for pair in zip(config.data.sources, store.manifest["by_source"], strict=True)],
            store=store.path.name,
            made=made,
            stages=[
                {"name": one.name, "budget": _budget(one.budget), "lr": f"{one.optimizer.lr:g}"}
                for one in config.stages[: stage.index + 1]
            ],
            version=sft.__version__,
            losses=[*_losses(run, stage, step, is_end)],
        )
    )


def _metadata(config: SftConfig, is_unreviewed: bool) -> str:
    """What the Hub sorts models by."""
    base = config.model.path if may_be_hub_id(config.model.path, "model") else None
    data = [one.path for one in config.data.sources if "/" in one.path and may_be_hub_id(one.path, "dataset")]
    tags = ["sft", *(["unreviewed-data"] if is_unreviewed else [])]
    card = ModelCardData(
        base_model=base, datasets=data or None, library_name="transformers", pipeline_tag="text-generation", tags=tags
    )
    return str(card.to_yaml())


def _source(source: Any, counts: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": source.name, "path": _shown_path(source.path, "dataset"), "num": counts["num_kept"]}


def _shown_path(path: str, kind: Any) -> str:
    """An id on the Hub as it is, a URL without secrets; the last two parts of a path here."""
    if "://" in path or may_be_hub_id(path, kind):
        return without_secrets(path)
    return "/".join(Path(path).parts[-2:])


def _budget(budget: BudgetConfig) -> str:
    """Of its four fields one is given."""
    ((name, value),) = ((name, value) for name, value in budget.model_dump().items() if value is not None)
    what = name.replace("_", " ")
    return counted(value, what.removesuffix("s")) if isinstance(value, int) else f"{value:g} {what}"


def _losses(run: RunFolder, stage: StageFolder, step: int, is_end: bool) -> Iterator[tuple[str, float]]:
    """Of the first model, of earlier stages at their ends, and of this one."""
    own = run.evaluation(stage, step)
    own = own if own.is_file() or not is_end else run.evaluation(stage)
    earlier = [one for one in run.stage_folders() if one.index < stage.index]
    files = [("before training", run.evaluation()), *((f"stage {one.name}", run.evaluation(one)) for one in earlier)]
    for name, path in [*files, (f"stage {stage.name}, this model", own)]:
        try:
            loss = read_evaluation(read_json(path), None, None).value("loss")
        except (OSError, UserError, KeyError, TypeError):
            continue  # a model without one number is better than none
        if math.isfinite(loss):
            yield name, loss


def _manifest(run: RunFolder) -> Mapping[str, Any]:
    try:
        content = read_json(run.manifest)
    except (OSError, UserError):
        return {}
    return content if isinstance(content, dict) else {}
