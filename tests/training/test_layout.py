"""The layout is settled once, counts for all attempts, and is tried on the real model before it trains."""

from pathlib import Path

import pytest

from sft.atomic_files import read_json, write_json
from sft.config import SftConfig
from sft.engine.single_process import SingleProcessEngine
from sft.errors import UserError
from sft.ranks.ranks import OneRank
from sft.run_events import EventLog, read_events
from sft.run_folder import RunFolder
from sft.training.layout import settle_layout, try_layout
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job
from tests.model.tiny_folders import write_tiny


def config_of(folder: Path, model: Path, records: SmallRecords, packing: str = "auto") -> SftConfig:
    content = two_stage_job("run", folder, model, records, {"broad": 2, "words": 2})
    content["train"]["packing"] = packing
    return SftConfig.model_validate(content)


def settle(config: SftConfig) -> str:
    folder = RunFolder(config.run.dir).attempt(1)
    folder.path.mkdir(parents=True, exist_ok=True)
    settled = settle_layout(config, OneRank(), EventLog(folder, 0))
    assert settled.train.model_copy(update={"packing": config.train.packing}) == config.train
    said = [event.facts["layout"] for event in read_events(folder)]
    assert said == ([] if settled.train.packing == "packed" else [settled.train.packing]), "what is usual is not said"
    return settled.train.packing


def test_what_was_settled_counts_once_the_run_has_trained(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    config = config_of(tmp_path, tiny_model_dir, small_records)
    run = RunFolder(config.run.dir)
    assert settle(config) == "packed"
    assert read_json(run.layout) == {"layout": "packed", "reason": None}
    write_json(run.layout, {"layout": "one_example", "reason": "it was so on the machines of the first attempt"})
    assert settle(config) == "packed", "nothing was trained yet"
    write_json(run.layout, {"layout": "one_example", "reason": "it was so on the machines of the first attempt"})
    metrics = run.stage(0, "broad").metrics
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    assert settle(config) == "one_example"


def test_a_model_that_leaks_is_not_trained_packed(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    model = write_tiny(tmp_path / "jamba", "jamba", tiny_model_dir)
    config = config_of(tmp_path, model, small_records, "packed")
    with pytest.raises(UserError, match="jamba cannot be trained packed: an example changes the nll of others"):
        settle(config)
    # Where nothing was tried before, the real model is.
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    with pytest.raises(UserError, match=r"an example changes the nll of others .* Nothing was trained"):
        try_layout(engine, config)
    auto = config_of(tmp_path, model, small_records)
    assert settle(auto) == "one_example"
    in_rows = config_of(tmp_path, model, small_records, "one_example")
    try_layout(SingleProcessEngine(in_rows, config.stages[0].optimizer, config.model.path), in_rows)
