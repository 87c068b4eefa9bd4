"""Publishes a model as a Hugging Face folder, without ever holding the whole model on one rank.

The folder is what transformers itself would save. Parameters are gathered one at a time, and turned into the files'
tensors a group at a time (see `sft.model.saved_tensors`). Each file belongs to one rank, which writes the file's
tensors as they are gathered. The header comes first: it follows from the shapes.

Parameters that are not trained are not gathered: they are copied, byte for byte, from the files that the stage started
from.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from sft.atomic_files import is_published, leave_receipt, publish_folder, read_receipts, remove_receipts, write_text
from sft.checkpoint.model_folder import write_model_folder
from sft.checkpoint.safetensors_file import SafetensorsWriter, TensorSpec
from sft.errors import UserError
from sft.model.loaded_dtypes import loaded_dtypes
from sft.model.saved_tensors import Group, build_skeleton, revert_group, saved_groups
from sft.model.weight_files import StoredTensor, finder, read_headers, weight_files
from sft.progress import Progress, Tell
from sft.ranks.agreement import any_rank
from sft.ranks.ranks import Ranks
from sft.ranks.shared_work import work_together

CARD = "README.md"
MAX_FILE_BYTES = 4 * 1024**3


class Exportable(Protocol):
    """Who has a model: an engine, or the checkpoint of one (see `sft.engine.engine.Engine`)."""

    @property
    def ranks(self) -> Ranks:
        """The ranks that export it together."""
        ...

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model; without numbers, where these are elsewhere."""
        ...

    def gather_parameters(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These whole parameters, one at a time, by any name; all ranks must iterate together."""
        ...


class About(NamedTuple):
    """What the folder of a model says of itself."""

    card: Callable[[], str] | None = None
    """The text of its README, for people; asked for on the first rank, once the weights are written."""
    manifest: Mapping[str, Any] = {}
    """What its manifest says besides."""


class Source(NamedTuple):
    """Where the tensors of a group come from: the files to copy them from, or else who has the model."""

    group: Group
    stored: Mapping[str, StoredTensor] | None
    specs: Mapping[str, TensorSpec]


def export_model(
    engine: Exportable,
    tokenizer: Any,
    final: Path,
    dtype: torch.dtype,
    attempt: int,
    stop_ids: Sequence[int] = (),
    about: About | None = None,
) -> None:
    """Write and publish the model at `final`; all ranks call this together.

    Args:
        engine: has the parameters; the progress of its ranks hears of each parameter and of each piece of a file.
        tokenizer: saved beside the model, with the chat template it was trained with.
        final: the folder to publish.
        dtype: the dtype of the trained parameters in the files, except those that transformers keeps in float32.
        attempt: tells this attempt's unfinished folder from one that a killed attempt left.
        stop_ids: the tokens that end an answer in training, the most frequent one first; the first rank's count.
        about: what the folder says of itself.

    Raises:
        UserError: a tensor is neither trained nor in the files that the stage started from.
    """
    ranks, world = engine.ranks, engine.ranks.world
    # The first rank decides for all, because all must gather together.
    if any_rank(ranks, world.is_first and is_published(final)):
        return
    aside = export_aside(final, attempt)
    if world.is_first:
        for left in set(final.parent.glob(f".{final.name}.attempt-*.partial")) - {aside}:
            shutil.rmtree(left, ignore_errors=True)  # left by a killed attempt: as large as the model
    aside.mkdir(parents=True, exist_ok=True)
    skeleton = build_skeleton(engine.hf_model, dtype)
    sources = find_sources(engine, skeleton, dtype)
    specs = {name: spec for source in sources for name, spec in source.specs.items()}
    split = split_state_dict_into_shards_factory(
        specs,
        get_storage_size=lambda spec: spec.num_bytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=MAX_FILE_BYTES,
    )
    own = [name for i, name in enumerate(split.filename_to_tensors) if i % world.size == world.rank]
    tell = ranks.progress.tell
    with ExitStack() as opened:
        writers: dict[str, SafetensorsWriter] = {}
        for file in own:
            tensors = split.filename_to_tensors[file]
            writer = SafetensorsWriter(aside / file, {tensor: specs[tensor] for tensor in tensors}, tell)
            writers |= dict.fromkeys(tensors, opened.enter_context(writer))
        for name, values in exported_tensors(engine, skeleton, sources, set(writers), tell):
            writers[name].write(name, values)
    ended = Progress()

    def end_own_files() -> None:
        for name in own:
            leave_receipt(aside / name, tell=ended.tell)

    def publish() -> None:
        if not world.is_first:
            return
        write_model_folder(engine.hf_model, tokenizer, aside, dtype, stop_ids, split)
        if about is not None and about.card is not None:
            write_text(aside / CARD, about.card())
        manifest = {"kind": "model", "dtype": str(dtype).removeprefix("torch."), **(about.manifest if about else {})}
        hashes = {name: receipt["sha256"] for name, receipt in read_receipts(aside).items()}
        remove_receipts(aside)
        publish_folder(aside, final, manifest, hashes)

    # When all ranks have synced their files, all files are written.
    work_together(ranks, end_own_files, ended)
    work_together(ranks, publish, ended)


def export_aside(final: Path, attempt: int) -> Path:
    """Where the folder is written until it is published."""
    return final.with_name(f".{final.name}.attempt-{attempt:04d}.partial")


def find_sources(engine: Exportable, skeleton: Any, dtype: torch.dtype) -> list[Source]:
    """Where each group of the model comes from; the same on all ranks.

    Raises:
        UserError: a tensor is nowhere.
    """
    model, groups = engine.hf_model, saved_groups(skeleton)
    parameters = model.named_parameters(remove_duplicate=False)
    trained = {name for name, parameter in parameters if parameter.requires_grad}
    dtypes, state = loaded_dtypes(skeleton, dtype), model.state_dict(keep_vars=True)
    stored: dict[str, StoredTensor] = {}
    if any(trained.isdisjoint(group.members) for group in groups):
        stored = read_headers(weight_files(model.name_or_path, finder(model.name_or_path, download=True)))
    sources = []
    for group in groups:
        there = {name: stored[name] for name, shape in group.saved.items() if _holds(stored, name, shape)}
        if trained.isdisjoint(group.members) and len(there) == len(group.saved):
            specs = {name: TensorSpec(t.shape, t.dtype, t.num_bytes) for name, t in there.items()}
            sources.append(Source(group, there, specs))
        else:
            if nowhere := [name for name in group.members if name not in trained and state[name].is_meta]:
                raise UserError(
                    f"model: {', '.join(nowhere)} is not trained, so no checkpoint holds it, and the files of "
                    f"{model.name_or_path} do not hold it as it is saved. Export the model at the end of its stage."
                )
            kind = dtypes[group.members[0]]
            sources.append(Source(group, None, {n: TensorSpec.of(shape, kind) for n, shape in group.saved.items()}))
    return sources


def exported_tensors(
    engine: Exportable, skeleton: Any, sources: Sequence[Source], own: set[str], tell: Tell
) -> Iterator[tuple[str, Tensor | bytes]]:
    """The tensors of this rank's files, named in `own`; all ranks iterate together, to the end."""
    buffers = _persistent_buffers(engine.hf_model)
    gathered = engine.gather_parameters(
        [name for source in sources if source.stored is None for name in source.group.members if name not in buffers]
    )
    for group, stored, specs in sources:
        wanted = own & set(specs)
        if stored is not None:
            for name in sorted(wanted):
                tell()
                yield name, stored[name].read()
            continue
        values = {}
        for member in group.members:
            tell()
            tensor = buffers[member] if member in buffers else next(gathered)[1]
            if wanted:
                # A copy, if it has to outlive the gathering of the next parameter.
                values[member] = tensor.detach().to("cpu", copy=len(group.members) > 1)
        if wanted:
            for name, tensor in revert_group(skeleton, group, values).items():
                if name in wanted:
                    yield name, tensor
    assert next(gathered, None) is None


def _persistent_buffers(model: Any) -> dict[str, Tensor]:
    """Those that belong to the model's file."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in model.state_dict().items() if name not in names}


def _holds(stored: Mapping[str, StoredTensor], name: str, shape: tuple[int, ...]) -> bool:
    return name in stored and stored[name].shape == shape
