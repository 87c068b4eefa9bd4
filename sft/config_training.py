"""The sections of the config that say how a step is computed: its shape, its engine, what is kept and what moves."""

from typing import Annotated, Any, Literal

from pydantic import PositiveInt

from sft.config_effects import AffectsNothing, AffectsNumbers, AffectsPlan
from sft.config_names import Was
from sft.config_section import Section
from sft.recomputed_layers import PacksField, RecomputedField


class TrainConfig(Section):
    """The shape of a step."""

    pack_len_tokens: AffectsPlan[PositiveInt] = 2048
    """Slots of a pack: examples are laid end to end up to this length."""
    packs_per_step: AffectsPlan[PositiveInt] = 32
    """Packs in one optimizer update, over all workers together. It never depends on the number of workers."""
    packs_per_micro_batch: AffectsNothing[Annotated[PacksField, Was("micro_packs")]] = "auto"
    """Packs in one forward and backward pass of a worker. `auto`: by the memory of the GPU; on a CPU 1."""
    packing: AffectsNumbers[Literal["auto", "packed", "one_example"]] = "auto"
    """How examples are laid out for the model: the examples of a pack end to end in one row, or each in a row of its
    own, followed by padding. `auto` packs if a test shows that the model keeps examples apart."""
    activation_checkpointing: AffectsNothing[RecomputedField] = "auto"
    """Which layers recompute their activations in the backward pass instead of keeping them: `all`, `none`, every n-th
    (a whole number), or a share of them (the first ones). `auto`: as few as fit on the GPU; on a CPU all. `true` is
    `all`, `false` is `none`."""
    offload_activations: AffectsNothing[Literal["none", "cpu"]] = "none"
    """Where the inputs of layers that recompute wait for the backward pass: on the GPU, or in the host's memory."""
    engine: AffectsNothing[Literal["auto", "zero3", "plain"]] = "auto"
    """`zero3` splits parameters, gradients and optimizer state over the workers. `plain` is for one worker, which has
    nothing to split: it is faster, and keeps everything on its device. `auto` is `plain` with one worker and no
    offload. Checkpoints are the same, so a run may go on with another engine."""
    sequence_parallel: AffectsNothing[PositiveInt] = 1
    """So many workers share each micro-batch, and each runs a part of its tokens: for packs whose activations do not
    fit on one GPU. They should be on one node. `cluster.workers` must be a multiple of it, and the model's heads of
    attention must be divisible by it."""
    logits_chunk_tokens: AffectsNothing[PositiveInt] = 2048
    """How many supervised positions have logits in memory at the same time."""
    flash_attention: AffectsNothing[Literal["auto", 2, 3, 4]] = "auto"
    """Which FlashAttention a GPU computes with. `auto`: 3 on Hopper where the module `flash_attn_interface` is
    installed, else torch's own, which is 2. 3 and 4 must be installed where the model is trained. They differ in
    rounding only."""
    deterministic: AffectsNothing[bool] = False
    """Whether the same run on the same GPUs and versions gives the same numbers to the bit. It is slower, and refuses
    models with operations that have no such implementation. On CPUs runs are equal without it."""
    non_finite: AffectsNothing[Literal["stop", "skip"]] = "stop"
    """What happens if a loss or a gradient is not finite, before the update: the run stops and names step and packs, or
    the step makes no update, is counted, and is recorded in the ledger as skipped."""
    max_skipped_steps: AffectsNothing[PositiveInt] = 10
    """With `skip`: this many skipped steps in a row stop the run after all."""

    def num_groups(self, num_workers: int) -> int:
        """How many groups of so many workers feed micro-batches of their own (see `sft.world.World`); at least one."""
        return max(1, num_workers // self.sequence_parallel)


class DeepSpeedConfig(Section):
    """ZeRO-3's own settings."""

    offload_optimizer: AffectsNothing[Literal["none", "cpu"]] = "none"
    """Where the optimizer's state is kept."""
    offload_parameters: AffectsNothing[Literal["none", "cpu"]] = "none"
    """Where the parameters' shards are kept."""
    hpz_partition_size: AffectsNothing[PositiveInt] = 1
    """This many workers, such as those of a node, share a copy of all parameters. The backward pass gathers from it
    instead of from other nodes (ZeRO++'s hpZ). 1: no copy."""
    gather: AffectsNothing[Literal["layer", "module"]] = "layer"
    """How many parameters are gathered at a time: those of a decoder layer together, or those of each module in it.
    By layer, the host has a fraction of the work, and the device waits less for it."""
    extra: AffectsNothing[dict[str, Any]] = {}
    """Settings to merge into DeepSpeed's config: only those that change nothing but speed and memory (see
    `sft.deepspeed_extra`)."""
