"""Checks that an exported folder does elsewhere what the trained model does here: what `sft export --check` does.

The trained model is the stage's checkpoint, computed as in training. So the export itself is checked, too: its weights
to the bit, and its files against those that the run writes. Where the checkpoint is gone, the weights are taken from
the folder, and only what else is in it is checked.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

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
from sft.parity.own_computation import compute_cases, log_probs
from sft.parity.parity_result import Check, ParityResult
from sft.parity.plain_process import PlainError, run_plain
from sft.parity.served import compare_served
from sft.progress import Tell
from sft.training.checkpoint_export import RunModel, open_model
from sft.training.exported_folder import ExportedFolder
from sft.world import World

_NO_SPLIT = StateDictSplit(metadata={}, filename_to_tensors={}, tensor_to_filename={})
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

    @property
    def numbers(self) -> torch.dtype:
        """That of the exported parameters."""
        return cast(torch.dtype, getattr(torch, self.config.model.dtype))

    @property
    def options(self) -> dict[str, bool]:
        """Whether code of the model may run, as transformers wants to be told."""
        return {"trust_remote_code": True} if self.config.model.trust_remote_code else {}


@dataclass(frozen=True)
class _Checking:
    """One check, under way."""

    trained: _Trained
    folder: Path
    world: World
    tell: Tell
    say: Say
    endpoint: EndpointClient | None

    def compare_weights(self, changed: Sequence[str]) -> Check:
        """Every tensor against the checkpoint's; without one, every file against its hash."""
        saved = self.trained.saved
        if saved is not None:
            unlike = differing_tensors(saved, self.folder, self.trained.numbers, self.tell)
            return Check("weights", len(saved.hf_model.state_dict()), len(unlike), unlike[0] if unlike else "")
        files = [path.name for path in self.folder.glob("*.safetensors")]
        unlike = [f"{name} is not as it was published" for name in files if name in changed]
        unlike = unlike if is_published(self.folder) else []
        return Check("weights", len(files), len(unlike), unlike[0] if unlike else "")

    def compare_use(self, cases: Sequence[Case], ends: tuple[int, ...]) -> list[Check]:
        """What transformers alone makes of the cases, against what the trained model makes of them.

        Args:
            cases: what is asked.
            ends: the tokens at which the run lets answers end.
        """
        trained, shown = self.trained, Shown(self.trained.pipeline.tokenizer.text_of)
        self.say("plain transformers")
        try:
            plain = run_plain(self.folder, cases, self.world.device, bool(trained.options), self.tell)
        except PlainError as error:
            return [Check("loading", 1, 1, f"plain transformers cannot use the folder: {error}")]
        checks = [
            compare_prompts(cases, plain.cases, shown),
            compare_ends(plain, ends, trained.learned, shown),
            compare_dtype(plain, trained.config.model.dtype),
        ]
        self.say("the trained model")
        own, layout = self._load(), layout_of(trained.config.train.packing)
        device, decoding = torch.device(self.world.device), try_decoding(own.hf_model.config, **trained.options)
        # Where nothing ends an answer, something that is never written does.
        stops = ends or (trained.pipeline.tokenizer.num_ids - 1,)
        mine = compute_cases(own, cases, layout, decoding, stops, device, self.tell)
        probabilities, allowed = compare_log_probs(cases, plain.cases, mine, trained.config.model.dtype, shown)

        def prefer(case: Case, written: tuple[int, ...], a: int, b: int) -> tuple[float, float]:
            before = (*case.prompt_ids, *written)
            first, second = log_probs(own, [((*before, token), len(before)) for token in (a, b)], layout)
            return first[0], second[0]

        def is_tie(case: Case, written: tuple[int, ...], a: int, b: int) -> bool:
            first, second = prefer(case, written, a, b)
            return abs(first - second) <= allowed.token

        checks += [probabilities, compare_answers(cases, plain, mine, allowed, prefer, shown)]
        if self.endpoint is not None:
            self.say("the server")
            checks += compare_served(self.endpoint, cases, mine, trained.pipeline.tokenizer, is_tie)
        return checks

    def _load(self) -> WholeModel:
        """The trained model: its weights from the checkpoint, or else from the folder."""
        trained, saved = self.trained, self.trained.saved
        if saved is None:
            return WholeModel(trained.config, str(self.folder), self.world)
        return WholeModel(trained.config, trained.model.start, self.world, saved.parameter)


def check_export(
    exported: ExportedFolder,
    reader: CheckpointReader | None,
    world: World,
    tell: Tell = lambda: None,
    say: Say = lambda text: None,
    endpoint: EndpointClient | None = None,
) -> ParityResult:
    """Compare a folder with the trained model.

    Args:
        exported: the folder, and what it is of.
        reader: the open checkpoint of that model, if it is there.
        world: where the trained model is computed, and plain transformers, too.
        tell: called whenever there is progress.
        say: told what is done now.
        endpoint: a server of the folder, to be asked the same.

    Raises:
        UserError: the run's own model, tokenizer or plans cannot be used.
        EndpointError: the server cannot be asked.
    """
    folder, model, dtype = exported
    trained = _trained(model, reader, dtype)
    checking = _Checking(trained, folder, world, tell, say, endpoint)
    with tempfile.TemporaryDirectory(prefix="sft-expected-") as aside:
        expected, tokenizer = Path(aside), load_tokenizer(trained.config.model)
        write_model_folder(trained.hf_model, tokenizer, expected, trained.numbers, trained.learned, _NO_SPLIT)
        num_files = len([*expected.iterdir()])
        differences = differing_files(folder, expected)
        ends = _ends_in(expected)
    say("files")
    changed = sorted(set(_changed(folder, tell)))
    wrong = [difference for difference in differences if difference.matters and difference.file in changed]
    checks = [Check("files", num_files, len(wrong), str(wrong[0]) if wrong else "")]
    say("weights")
    checks.append(checking.compare_weights(changed))
    fixed = fixed_cases(trained.pipeline, trained.config)
    checks += checking.compare_use([*fixed.cases, *_heldout_cases(trained)], ends)
    notes = [f"left out: {text}" for text in fixed.left_out]
    if trained.saved is None:
        notes.append("the checkpoint is gone: the weights are those of the folder")
    causes = [str(difference) for difference in differences]
    more = [f"and {len(causes) - _MOST_CAUSES} more"] if len(causes) > _MOST_CAUSES else []
    told = *causes[:_MOST_CAUSES], *more
    return ParityResult(str(folder), **model.place, dtype=dtype, checks=(*checks,), causes=told, notes=(*notes,))


def _trained(model: RunModel, reader: CheckpointReader | None, dtype: str) -> _Trained:
    config = model.config.model_copy(update={"model": model.config.model.model_copy(update={"dtype": dtype})})
    saved = None if reader is None else open_model(model, reader, dtype)
    hf_model = saved.hf_model if saved else load_without_weights(config.model, model.start, getattr(torch, dtype))
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
    most = model.config.data.max_len_tokens
    return heldout_rows(TokenStore.open(store), heldout, most) if is_published(store) else []
