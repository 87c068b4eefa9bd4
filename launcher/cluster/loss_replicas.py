"""The losses of examples for a whole model, on the workers of a job: each gets some examples at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from launcher.cluster.replicas import dealt, replicas_of
from sft.answering.whole_model import WholeModel
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.difficulty.example_losses import example_losses
from sft.difficulty.loss_table import Floats
from sft.job_config import ClusterConfig
from sft.model.attention import layout_of
from sft.schema import Example
from sft.world import World

Key = TypeVar("Key")


def measured_losses(
    cluster: ClusterConfig,
    connect: Callable[[], bool],
    config: SftConfig,
    groups: Iterable[tuple[Key, Sequence[Example]]],
) -> Iterator[tuple[Key, Floats]]:
    """The losses of groups of examples (see `sft.difficulty.example_losses`), as they come.

    Args:
        cluster: the workers.
        connect: to them (see `launcher.cluster.replicas.workers_connected`).
        config: `model.path` and the layout are those of the model.
        groups: each with a key that comes back with its losses.

    Raises:
        UserError: the model cannot be loaded, or the cluster cannot be reached.
        TrainingError: the workers are lost.
    """
    about = config.model_dump(mode="json", by_alias=True), bool(cluster.gpus_per_worker)
    if not connect():
        worker = _LossReplica(*about)
        for key, examples in groups:
            yield key, worker.losses((key, examples))
        return
    with replicas_of(cluster, _LossReplica, lambda rank, size: about) as replicas:
        for (key, _), losses in dealt(replicas, "losses", groups, "losses were measured"):
            yield key, losses


class _LossReplica:
    """A model on one worker."""

    def __init__(self, config: dict[str, Any], on_gpu: bool) -> None:
        read = SftConfig.model_validate(config)
        self._model = WholeModel(read, read.model.path, World(device="cuda:0" if on_gpu else "cpu"))
        self._begins = load_tokenizer(read.model).bos_token_id
        self._layout = layout_of(read.train.packing)
        self._max_slots = read.train.pack_len_tokens

    def losses(self, group: tuple[Any, Sequence[Example]]) -> Floats:
        """Those of a group."""
        return example_losses(self._model, group[1], self._begins, self._layout, self._max_slots)
