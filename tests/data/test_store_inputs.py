"""What the name of a token store is made of: the fields that say that they affect it."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import create_model

from sft.atomic_files import fingerprint
from sft.config import DataConfig, ModelConfig, SourceConfig, TaskTagConfig
from sft.config_effects import Affects, AffectsNothing, AffectsStore, store_inputs
from sft.config_section import Section
from sft.config_sources import CsvConfig
from sft.config_training import TrainConfig
from sft.data.store_recipe import fingerprint_inputs
from sft.job_config import SlurmConfig

FULL: dict[str, Any] = {
    "max_len_tokens": 9,
    "overlong": "truncate",
    "bad_records": "quarantine",
    "max_bad_share": 0.5,
    "duplicates": "keep",
    "near_duplicate_similarity": 0.3,
    "train_on": "last_assistant",
    "task_tag": {"text": "T {task}", "texts": {"a": "b"}, "dropout": 0.5},
    "holdout": {"share": 0.4, "tasks": ["t"]},
    "cache_dir": "/c",
    "staging": "node_local",
    "staging_dir": "/d",
}
MODEL = ModelConfig(path="m")
FINGERPRINTS = ["77172dbbbe372242", "903125a58cf5d08a", "3a5d65a02cc51568"]


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "Say it.", "output": "It."}\n')
    return {"name": "a", "path": str(path), "format": "instruction"}


def test_a_store_that_was_made_is_found_again(source: dict[str, Any]) -> None:
    """A change of these makes every store anew. A new field leaves them alone with `absent_at`."""
    mapped = {"columns": {"input": "context"}, "task": {"column": "task"}, "split": "all"}
    two = [{**source, **mapped}, {**source, "name": "b", "task": "t"}]
    near = {"duplicates": "remove_near", "near_duplicate_similarity": 0.7}
    contents = [{"sources": [source]}, {"sources": [source], **near}, {"sources": two, **FULL}]
    found = [fingerprint(fingerprint_inputs(DataConfig.model_validate(c), MODEL, "tokenizer")) for c in contents]
    assert found == FINGERPRINTS


def with_field(section: type[Section], annotation: Any, default: Any) -> type[Any]:
    new: Any = {"new": (annotation, default)}
    # The texts below fields are looked for in all modules that are imported: a second where there are thousands.
    quick: Any = {"use_attribute_docstrings": False}
    return create_model(section.__name__, __base__=section, __cls_kwargs__=quick, **new)


@pytest.mark.parametrize("section", [DataConfig, SourceConfig, TaskTagConfig, ModelConfig, TrainConfig, SlurmConfig])
def test_a_field_says_once_what_it_affects(section: type[Section]) -> None:
    with pytest.raises(TypeError, match=r"\.new has 0 marks.*AffectsNothing"):
        with_field(section, int, 0)
    with pytest.raises(TypeError, match=r"\.new has 2 marks"):
        with_field(section, AffectsStore[AffectsNothing[int]], 0)
    with pytest.raises(TypeError, match=r"\.new has 1 marks.*leaves that to its fields"):
        with_field(section, AffectsStore[CsvConfig], CsvConfig())
    with_field(section, CsvConfig, CsvConfig())


@pytest.mark.parametrize("where", ["data", "a source", "the task tag", "the model"])
def test_a_new_field_is_in_the_fingerprint(where: str, source: dict[str, Any]) -> None:
    def inputs(value: int) -> dict[str, Any]:
        given = {"new": value}
        model: Any = MODEL
        data: Any = DataConfig.model_validate({"sources": [source], "task_tag": {}})
        match where:
            case "data":
                data = with_field(DataConfig, AffectsStore[int], 0).model_validate({"sources": [source]} | given)
            case "a source":
                item = with_field(SourceConfig, AffectsStore[int], 0).model_validate(source | given)
                data = data.model_copy(update={"sources": (item,)})
            case "the task tag":
                tag = with_field(TaskTagConfig, AffectsStore[int], 0).model_validate(given)
                data = data.model_copy(update={"task_tag": tag})
            case _:
                model = with_field(ModelConfig, AffectsStore[int], 0).model_validate({"path": "m"} | given)
        return fingerprint_inputs(data, model, "tokenizer")

    assert fingerprint(inputs(0)) != fingerprint(inputs(1))
    plain: Any = fingerprint_inputs(
        DataConfig.model_validate({"sources": [source], "task_tag": {}}), MODEL, "tokenizer"
    )
    assert fingerprint(inputs(0)) != fingerprint(plain), "its default, too, says that it is there"


@pytest.mark.parametrize(
    ("mark", "counted"),
    [
        (Affects("nothing"), {0: False, 1: False}),
        (Affects("plan"), {0: False, 1: False}),
        (Affects("numbers"), {0: False, 1: False}),
        (Affects("store", by_content=True), {0: False, 1: False}),
        (Affects("store", absent_at=0), {0: False, 1: True}),
        (Affects("store", only_with=("overlong", "drop")), {0: True, 1: True}),
        (Affects("store", only_with=("overlong", "error")), {0: False, 1: False}),
    ],
)
def test_a_mark_says_when_a_field_counts(mark: Affects, counted: dict[int, bool], source: dict[str, Any]) -> None:
    data = with_field(DataConfig, Annotated[int, mark], 0)
    for value, counts in counted.items():
        inputs = store_inputs(data.model_validate({"sources": [source], "new": value}))
        assert ("new" in inputs) == counts
