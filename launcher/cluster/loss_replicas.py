"""The losses of examples for a whole model, on the workers of a job: each gets some examples at a time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher.cluster.replicas import dealt, replicas_of, workers_connected
from sft.answering.whole_model import WholeModel
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.token_store import TokenStore
from sft.difficulty.example_losses import example_losses
from sft.difficulty.loss_table import Floats
from sft.job_config import JobConfig
from sft.model.attention import layout_of
from sft.schema import IntArray
from sft.world import World

MeasureLosses = Callable[[SftConfig, Path, Iterable[IntArray]], Iterator[tuple[IntArray, Floats]]]
"""From a config whose `model.path` and layout are the model's, a token store and groups of its rows, to each group with
its losses (see `sft.difficulty.example_losses`), as they come.

Raises:
    UserError: the model cannot be loaded.
    TrainingError: the workers are lost.
"""


@contextmanager
def loss_workers(job: JobConfig, console: Console) -> Iterator[MeasureLosses]:
    """While open, losses can be measured.

    Raises:
        UserError: the cluster cannot be reached.
    """
    with workers_connected(job.cluster, console) as connected:
        yield partial(_on_replicas if connected else _here, job)


def _here(
    job: JobConfig, config: SftConfig, store: Path, groups: Iterable[IntArray]
) -> Iterator[tuple[IntArray, Floats]]:
    worker = _LossReplica(config.model_dump(mode="json", by_alias=True), str(store), bool(job.cluster.gpus_per_worker))
    for rows in groups:
        yield rows, worker.losses(rows)


def _on_replicas(
    job: JobConfig, config: SftConfig, store: Path, groups: Iterable[IntArray]
) -> Iterator[tuple[IntArray, Floats]]:
    about = config.model_dump(mode="json", by_alias=True), str(store), bool(job.cluster.gpus_per_worker)
    with replicas_of(job.cluster, _LossReplica, lambda rank, size: about) as replicas:
        yield from dealt(replicas, "losses", groups, "losses were measured")


class _LossReplica:
    """A model on one worker."""

    def __init__(self, config: dict[str, Any], store: str, on_gpu: bool) -> None:
        read = SftConfig.model_validate(config)
        self._store = TokenStore.open(Path(store))
        self._model = WholeModel(read, read.model.path, World(device="cuda:0" if on_gpu else "cpu"))
        self._begins = load_tokenizer(read.model).bos_token_id
        self._layout = layout_of(read.train.packing)
        self._max_slots = read.train.pack_len_tokens

    def losses(self, rows: IntArray) -> Floats:
        """Those of these examples of the store."""
        examples = [self._store.example(int(row)) for row in rows]
        return example_losses(self._model, examples, self._begins, self._layout, self._max_slots)
