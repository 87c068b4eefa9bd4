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
from tests.checkpoint.ranks import Rank, run_ranks
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
    model = write_tiny(tmp_path / "bloom", "bloom", tiny_model_dir)
    config = config_of(tmp_path, model, small_records, "packed")
    with pytest.raises(UserError, match="bloom cannot be trained packed: an example changes the nll of others"):
        settle(config)
    # Where nothing was tried before, the real model is.
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    with pytest.raises(UserError, match=r"an example changes the nll of others .* Nothing was trained"):
        try_layout(engine, config)
    auto = config_of(tmp_path, model, small_records)
    assert settle(auto) == "one_example"
    in_rows = config_of(tmp_path, model, small_records, "one_example")
    try_layout(SingleProcessEngine(in_rows, config.stages[0].optimizer, config.model.path), in_rows)


def test_a_run_goes_on_only_with_a_number_of_ranks_to_a_row_that_its_model_allows(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    """It is checked in every attempt, and all ranks hear of it: none of them waits for another."""

    def refused(config: SftConfig, num_ranks: int) -> str:
        train = config.train.model_copy(update={"sequence_parallel": num_ranks})
        folder = RunFolder(config.run.dir).attempt(1)
        folder.path.mkdir(parents=True, exist_ok=True)

        def main(rank: Rank) -> str:
            try:
                settle_layout(config.model_copy(update={"train": train}), rank, EventLog(folder, rank.world.rank))
            except UserError as error:
                return f"{error}{'' if error.is_everywhere else ' (of this rank)'}"
            return ""

        (text,) = set(run_ranks(2 * num_ranks + 1, main, num_ranks))
        return text

    def record(config: SftConfig, layout: str) -> None:
        run = RunFolder(config.run.dir)
        run.stage(0, "broad").metrics.parent.mkdir(parents=True, exist_ok=True)
        run.stage(0, "broad").metrics.touch()
        write_json(run.layout, {"layout": layout, "reason": None})

    config = config_of(tmp_path, tiny_model_dir, small_records)
    by_heads = (
        "4 heads of attention, 2 of keys, cannot be divided among 3 workers equally. For this model work: 1, 2, 4."
    )
    assert refused(config, 3) == f"train.sequence_parallel: 3: {by_heads}"
    record(config, "packed")
    assert refused(config, 3) == f"train.sequence_parallel: 3: {by_heads}"
    assert refused(config, 2) == refused(config, 4) == refused(config, 1) == ""
    record(config, "one_example")
    assert refused(config, 2) == (
        "train.sequence_parallel: 2: workers cannot share the rows of this run: it has one example a row. Set it to 1."
    )
    given = {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}
    mixing = write_tiny(tmp_path / "lfm2", "lfm2", tiny_model_dir, **given)
    config = config_of(tmp_path, mixing, small_records)
    record(config, "packed")
    assert "workers cannot share the rows of lfm2: " in refused(config, 2)
