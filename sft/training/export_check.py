"""Checks that an exported folder does elsewhere what the trained model does here: what `sft export --check` does.

The trained model is the stage's checkpoint, computed as in training. So the export itself is checked, too: its weights
to the bit, and its files against those that the run writes. Where the checkpoint is gone, the weights are taken from
the folder, and only what else is in it is checked.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import StateDictSplit

from sft.answering.decoding import try_decoding
from sft.answering.whole_model import WholeModel
from sft.atomic_files import MANIFEST, check_files, is_published
from sft.checkpoint.checkpoint_model import CheckpointModel
from sft.checkpoint.model_folder import GENERATION_CONFIG, write_model_folder
from sft.checkpoint.rank_file import CheckpointReader
from sft.checkpoint.weight_comparison import differing_tensors
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.token_store import TokenStore, store_path
from sft.endpoint.client import EndpointClient
from sft.model.attention import layout_of
from sft.model.loading import load_without_weights
from sft.parity.case import Case
from sft.parity.cases import asked_cases, fixed_cases, heldout_rows
from sft.parity.comparison import (
    Shown,
    compare_answers,
    compare_dtype,
    compare_ends,
    compare_log_probs,
    compare_prompts,
)
from sft.parity.folder_files import differing_files
from sft.parity.own_computation import OwnCase, compute_cases, log_probs
from sft.parity.parity_result import Check, ParityResult
from sft.parity.plain_process import PlainError, PlainResult, run_plain
from sft.parity.served import compare_served
from sft.parity.tolerance import Tolerance
from sft.progress import Tell
from sft.training.checkpoint_export import RunModel
from sft.world import World

_NO_SPLIT = StateDictSplit(is_sharded=False, metadata={}, filename_to_tensors={}, tensor_to_filename={})
_MOST_CAUSES = 12

Say = Callable[[str], None]
"""Is told what is done now."""


class _Trained(NamedTuple):
    """The trained model, before it is loaded."""

    model: RunModel
    config: SftConfig
    """In the dtype of the folder."""
    saved: CheckpointModel | None
    """None where the checkpoint is gone."""
    hf_model: Any
    """Without numbers."""
    pipeline: RecordPipeline
    learned: tuple[int, ...]
    """The tokens that end answers in training."""


def check_export(
    model: RunModel,
    reader: CheckpointReader | None,
    folder: Path,
    dtype: str,
    world: World,
    tell: Tell = lambda: None,
    say: Say = lambda text: None,
    endpoint: EndpointClient | None = None,
) -> ParityResult:
    """Compare a folder with the trained model.

    Args:
        model: what the folder is of.
        reader: its open checkpoint, if it is there.
        folder: the exported model.
        dtype: in which it was exported.
        world: where the trained model is computed, and plain transformers, too.
        tell: called whenever there is progress.
        say: told what is done now.
        endpoint: a server of the folder, to be asked the same.

    Raises:
        UserError: the run's own model, tokenizer or plans cannot be used.
        EndpointError: the server cannot be asked.
    """
    trained = _trained(model, reader, dtype)
    with tempfile.TemporaryDirectory(prefix="sft-expected-") as aside:
        expected = Path(aside)
        tokenizer = load_tokenizer(trained.config.model)
        write_model_folder(
            trained.hf_model, tokenizer, expected, getattr(torch, dtype), trained.learned, _NO_SPLIT
        )
        num_files = len([*expected.iterdir()])
        differences = differing_files(folder, expected)
        ends = _ends_in(expected)
    say("files")
    changed = sorted(set(_changed(folder, tell)))
    wrong = [difference for difference in differences if difference.matters and difference.file in changed]
    checks = [Check("files", num_files, len(wrong), str(wrong[0]) if wrong else "")]
    say("weights")
    checks.append(_compare_weights(trained, folder, changed, tell))
    notes = [] if trained.saved else ["the checkpoint is gone: the weights are those of the folder"]
    fixed = fixed_cases(trained.pipeline, trained.config)
    cases = [*fixed.cases, *_heldout_cases(trained)]
    notes += [f"left out: {text}" for text in fixed.left_out]
    computed = _compute(trained, folder, cases, ends, world, tell, say, endpoint)
    causes = [str(difference) for difference in differences]
    more = [f"and {len(causes) - _MOST_CAUSES} more"] if len(causes) > _MOST_CAUSES else []
    place = model.place
    return ParityResult(
        str(folder),
        place["run"],
        place["stage"],
        place["step"],
        dtype,
        (*checks, *computed),
        (*causes[:_MOST_CAUSES], *more),
        tuple(notes),
    )


def _compare_weights(trained: _Trained, folder: Path, changed: Sequence[str], tell: Tell) -> Check:
    """Every tensor against the checkpoint's; without one, every file against its hash."""
    saved, dtype = trained.saved, getattr(torch, trained.config.model.dtype)
    if saved is not None:
        unlike = differing_tensors(saved, folder, dtype, tell)
        return Check("weights", len(saved.hf_model.state_dict()), len(unlike), unlike[0] if unlike else "")
    files = [path.name for path in folder.glob("*.safetensors")]
    unlike = [f"{name} is not as it was published" for name in files if name in changed and is_published(folder)]
    return Check("weights", len(files), len(unlike), unlike[0] if unlike else "")


def _trained(model: RunModel, reader: CheckpointReader | None, dtype: str) -> _Trained:
    config = model.config.model_copy(update={"model": model.config.model.model_copy(update={"dtype": dtype})})
    saved = None if reader is None else CheckpointModel(config.model, model.start, reader, getattr(torch, dtype))
    hf_model = saved.hf_model if saved else load_without_weights(config.model, model.start)
    pipeline = RecordPipeline(config.data, config.model)
    return _Trained(model, config, saved, hf_model, pipeline, model.stop_ids(load_tokenizer(config.model)))


def _ends_in(folder: Path) -> tuple[int, ...]:
    """The tokens that end an answer by the generation config in the folder."""
    ends = json.loads((folder / GENERATION_CONFIG).read_text(encoding="utf-8")).get("eos_token_id", [])
    return tuple(ends if isinstance(ends, list) else [ends])


def _changed(folder: Path, tell: Tell) -> Iterator[str]:
    """The files that are not as they were published; of a folder without a manifest, all."""
    problems = check_files(folder, tell=tell)
    names = [problem.partition(" ")[0].rstrip(":") for problem in problems]
    yield from [path.name for path in folder.iterdir()] if MANIFEST in names else names


def _heldout_cases(trained: _Trained) -> list[Case]:
    """Of the questions that the run asks its models; else, held-out examples as they were prepared."""
    model = trained.model
    if is_published(model.run.questions):
        return asked_cases(model.run.questions, trained.pipeline, trained.learned)
    if not is_published(model.run.heldout_packs):
        return []
    heldout = PackPlan.open(model.run.heldout_packs)
    store = store_path(model.config.data.cache_dir, heldout.manifest["inputs"]["store"])
    return heldout_rows(TokenStore.open(store), heldout) if is_published(store) else []


def _compute(
    trained: _Trained,
    folder: Path,
    cases: Sequence[Case],
    ends: tuple[int, ...],
    world: World,
    tell: Tell,
    say: Say,
    endpoint: EndpointClient | None,
) -> list[Check]:
    tokenizer, dtype = trained.pipeline.tokenizer, trained.config.model.dtype
    shown = Shown(tokenizer.text_of)
    say("plain transformers")
    try:
        plain = run_plain(folder, cases, world.device, trained.config.model.trust_remote_code, tell)
    except PlainError as error:
        return [Check("loading", 1, 1, f"plain transformers cannot use the folder: {error}")]
    checks = [
        compare_prompts(cases, plain.cases, shown),
        compare_ends(plain, ends, trained.learned, shown),
        compare_dtype(plain, dtype),
    ]
    say("the trained model")
    with _loaded(trained, folder, world) as own:
        device, layout = torch.device(world.device), layout_of(trained.config.train.packing)
        options = {"trust_remote_code": True} if trained.config.model.trust_remote_code else {}
        stops = ends or (tokenizer.num_ids - 1,)
        decoding = try_decoding(own.hf_model.config, **options)
        mine = compute_cases(own, cases, layout, decoding, stops, device, tell)

        def prefer(case: Case, written: tuple[int, ...], a: int, b: int) -> tuple[float, float]:
            before = (*case.prompt_ids, *written)
            first, second = log_probs(own, [((*before, token), len(before)) for token in (a, b)], layout)
            return first[0], second[0]

        return [*checks, *_compare(cases, plain, mine, dtype, prefer, shown, endpoint, trained)]


def _compare(
    cases: Sequence[Case],
    plain: PlainResult,
    mine: Sequence[OwnCase],
    dtype: str,
    prefer: Callable[[Case, tuple[int, ...], int, int], tuple[float, float]],
    shown: Shown,
    endpoint: EndpointClient | None,
    trained: _Trained,
) -> list[Check]:
    probabilities, allowed = compare_log_probs(cases, plain.cases, mine, dtype, shown)
    checks = [probabilities, compare_answers(cases, plain, mine, allowed, prefer, shown)]
    if endpoint is not None:
        is_tie = _tie_within(prefer, allowed)
        checks += compare_served(endpoint, cases, mine, trained.pipeline.tokenizer, is_tie)
    return checks


def _tie_within(
    prefer: Callable[[Case, tuple[int, ...], int, int], tuple[float, float]], allowed: Tolerance
) -> Callable[[Case, tuple[int, ...], int, int], bool]:
    def is_tie(case: Case, written: tuple[int, ...], a: int, b: int) -> bool:
        first, second = prefer(case, written, a, b)
        return abs(first - second) <= allowed.token

    return is_tie


@contextmanager
def _loaded(trained: _Trained, folder: Path, world: World) -> Iterator[WholeModel]:
    """The trained model: its weights from the checkpoint, or else from the folder."""
    with ExitStack() as held:
        saved = trained.saved
        path = trained.model.start if saved else str(folder)
        own = WholeModel(trained.config, path, world, saved.parameter if saved else None)
        held.callback(_free, world)
        yield own


def _free(world: World) -> None:
    if world.on_gpu:
        torch.cuda.empty_cache()
