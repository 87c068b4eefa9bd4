"""Settings that do nothing beside the others: notes of a plan, because they do no harm."""

from collections.abc import Collection, Iterator

from sft.config import SftConfig
from sft.config_training import DeepSpeedConfig
from sft.engine.choice import EngineName


def idle_settings(config: SftConfig, engines: Collection[EngineName], has_gpus: bool) -> Iterator[str]:
    """A sentence for each setting that the config changes to no effect.

    Args:
        config: the config.
        engines: those that the run may have.
        has_gpus: whether it trains on GPUs.
    """
    train = config.train
    if train.offload_activations == "cpu" and train.activation_checkpointing == "none":
        why = "no layer recomputes its activations (train.activation_checkpointing: none)"
        yield f"train.offload_activations: cpu does nothing, because {why}"
    elif train.offload_activations == "cpu" and not has_gpus:
        yield "train.offload_activations: cpu does nothing, because the workers have no GPU (cluster.gpus_per_worker)"
    if "zero3" not in engines:
        default = dict(DeepSpeedConfig())
        for name, value in config.deepspeed:
            if value != default[name]:
                why = "the engine is the plain one, without ZeRO-3 (train.engine)"
                yield f"deepspeed.{name} does nothing, because {why}"
