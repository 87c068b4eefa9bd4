"""Measures whole models of a run, or others, apart from any training: what `sft evaluate` does.

What is made for it, and what comes out, lies in a folder of its own, named by the settings. So a training in the same
run folder may go on meanwhile, and other settings do not replace what was measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from sft.absolute_paths import absolute_path
from sft.answer_files import answers_of
from sft.answering.asking import Ask
from sft.answering.whole_model import WholeModel
from sft.atomic_files import fingerprint, is_published, read_json, write_json
from sft.config import SftConfig
from sft.data.block_preparer import Executor, prepare_in_threads
from sft.data.made_records import made_of_run
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.plan_inputs import heldout_inputs
from sft.data.planning.stage_plan import publish_heldout
from sft.data.planning.trainable import unseen_tasks
from sft.data.preparation import Report, build_store
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.evaluation.heldout import TOKEN_METRICS, HeldoutSet, TokenEvaluator
from sft.evaluation.judged_answers import check_scores
from sft.evaluation.scores import Evaluation, Evaluator, Sums, evaluate, read_evaluation
from sft.model.attention import layout_of
from sft.progress import Tell
from sft.questions.question_set import make_questions, open_questions, question_inputs
from sft.ranks.ranks import OneRank
from sft.run_claim import measuring_in
from sft.run_folder import RunFolder
from sft.scoring.metric import Metric
from sft.training.asked import AskedQuestions
from sft.world import World

BASE = "base"
"""The name of the model that a run starts from."""


class WholeModelPath(NamedTuple):
    """A model to measure."""

    name: str
    """Its name in tables."""
    path: str
    """A folder or Hub id."""
    stage_index: int | None = None
    """That of the stage that it is the result of."""
    in_vllm: tuple[str, ...] | None = None
    """The options with which vLLM answers for it; None: this program computes."""

    @property
    def title(self) -> str:
        """Its name in results, which says what computed them."""
        return self.name if self.in_vllm is None else f"{self.name} in vLLM"

    @property
    def file_name(self) -> str:
        """Its name in files, without their ends.

        It tells the files of the model apart from others that lay in the same place: those of a stage that was extended
        since, or of a folder that was written anew.
        """
        if self.stage_index is not None:
            kind = f"{self.stage_index}-{self.name}"
        else:
            kind = BASE if self.name == BASE else "other"
        folder = Path(self.path)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [[file.name, stat.st_size, stat.st_mtime_ns] for file in files for stat in (file.stat(),)]
        if self.in_vllm is None:
            return f"{kind}-{fingerprint([self.path, found])[:12]}"
        return f"{kind}-in-vllm-{fingerprint([self.path, found, self.in_vllm])[:12]}"


class Measurement(NamedTuple):
    """What models are measured on."""

    folder: Path
    store: TokenStore
    heldout: PackPlan
    asked: AskedQuestions | None
    made: Mapping[str, Any] = {}
    """Of the data: see `sft.data.made_records.made_of_run`."""

    def result_of(self, model: WholeModelPath) -> Path:
        """The file of a model's evaluation, once it is measured."""
        return self.folder / f"{model.file_name}.json"


def prepare_measurement(
    config: SftConfig, report: Report = lambda progress: None, executor: Executor = prepare_in_threads
) -> Measurement:
    """Make what is missing: the token store, the packs of held-out examples, the questions.

    Raises:
        UserError: the data cannot be used, nothing is held out, or a setting of `evaluate` is wrong.
    """
    recipe = StoreRecipe.of(config.data, config.model)
    store = build_store(recipe, report, executor)
    folder = RunFolder(config.run.dir).asked(fingerprint(question_inputs(config, store))[:12])
    with measuring_in(folder):
        packs = folder / "packs"
        if not is_published(packs):
            publish_heldout(packs, config, store, heldout_inputs(config, store))
        if not is_published(packs):
            raise UserError("data.holdout: no example is held out, so nothing can be measured. Set data.holdout.share.")
        heldout = PackPlan.open(packs)
        questions = make_questions(folder / "questions", config, store, heldout, recipe.preparer)
    if questions is not None:
        check_scores(open_questions(questions), config.evaluate)
    asked = None if questions is None else AskedQuestions.open(questions, config)
    return Measurement(folder, store, heldout, asked, made_of_run(store.manifest, recipe.passed))


def has_other_tokens(config: SftConfig, path: str) -> bool:
    """Whether a model comes with a tokenizer of another vocabulary than that of the run's prompts."""
    try:
        other = load_tokenizer(config.model.model_copy(update={"path": path, "tokenizer": None}))
    except UserError:
        return False  # it comes without one
    return bool(other.get_vocab() != load_tokenizer(config.model).get_vocab())


def check_same_tokens(config: SftConfig, path: str) -> None:
    """Refuse a model with other tokens than those of the run's prompts.

    Raises:
        UserError: the model has a tokenizer with another vocabulary.
    """
    if has_other_tokens(config, path):
        raise UserError(
            f"{path} has other tokens than {config.model.tokenizer or config.model.path}, so its prompts are others. "
            f"Measure it with a config of its own: model.path={path} run.dir=…"
        )


class LoadedModel(NamedTuple):
    """A model that is ready to be measured, wherever it is."""

    token_sums: Callable[[], Sums] | None
    """Measures it on the held-out packs, token by token; None for a model that only writes."""
    ask: Ask | None
    """Asks it; None where nothing is asked."""


OpenModel = Callable[[SftConfig, Measurement, WholeModelPath, Tell], AbstractContextManager[LoadedModel]]
"""Loads a model for as long as the context is open. The layout of the config is that of the model.

Raises:
    UserError: it cannot be loaded.
"""


@contextmanager
def model_here(
    config: SftConfig, measurement: Measurement, model: WholeModelPath, tell: Tell, world: World | None = None
) -> Iterator[LoadedModel]:
    """`OpenModel` in this process. With a `world`, it is measured on this rank's share of the held-out packs."""
    whole = WholeModel(config, model.path, world or World())
    heldout = HeldoutSet(measurement.store, measurement.heldout)
    tokens = TokenEvaluator(whole, heldout, tell, layout_of(config.train.packing))
    yield LoadedModel(tokens.measure, measurement.asked.ask_whole(whole, config, tell) if measurement.asked else None)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """`Evaluator` of a loaded model, token by token."""

    measure: Callable[[], Sums]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {name: metric for name, (metric, _) in TOKEN_METRICS.items()}


def measure_whole(
    config: SftConfig, measurement: Measurement, model: WholeModelPath, open_model: OpenModel, tell: Tell
) -> Evaluation:
    """The evaluation of a model; one that was measured is read.

    Args:
        config: its layout is that of the model.
        measurement: what it is measured on.
        model: the model.
        open_model: loads it.
        tell: called whenever there is progress.

    Raises:
        UserError: the model cannot be loaded, or a score cannot judge here.
    """
    path, asked = measurement.result_of(model), measurement.asked
    with FileLock(path.with_name(f".{path.stem}.lock")):
        if not path.is_file():
            with open_model(config, measurement, model, tell) as loaded:
                evaluators: list[Evaluator] = [_Tokens(loaded.token_sums)] if loaded.token_sums else []
                if asked and loaded.ask:
                    answers = answers_of(path)
                    evaluators.append(asked.evaluator(loaded.ask, OneRank(), config.evaluate, answers, model.path))
                evaluation = evaluate(evaluators, model.title, unseen_tasks(config, measurement.store))
            write_json(path, evaluation.as_json())
    return read_evaluation(read_json(path), model.stage_index, None)


def models_of(config: SftConfig, wanted: Sequence[str]) -> list[WholeModelPath]:
    """The models that are named (see `named_models`), which are asked the run's own prompts.

    Raises:
        UserError: a stage has no model yet, or a model has other tokens.
    """
    models = named_models(config, wanted)
    for model in models:
        if model.name != BASE and model.stage_index is None:
            check_same_tokens(config, model.path)
    return models


def named_models(config: SftConfig, wanted: Sequence[str]) -> list[WholeModelPath]:
    """The models that are named: `base`, a stage of the run, or a folder or Hub id; by default base and the last stage.

    Raises:
        UserError: a stage has no model yet, or a path is mistyped.
    """
    run = RunFolder(config.run.dir)
    names = [stage.name for stage in config.stages]
    finished = [name for i, name in enumerate(names) if is_published(run.stage(i, name).model)]
    models = []
    for name in wanted or [BASE, *finished[-1:]]:
        if name == BASE:
            models.append(WholeModelPath(BASE, config.model.path))
        elif name in names:
            if name not in finished:
                there = f"Finished are {', '.join(finished)}." if finished else "No stage is finished."
                raise UserError(f"{name}: this stage of {run.path} has no model yet. {there}")
            index = names.index(name)
            models.append(WholeModelPath(name, str(run.stage(index, name).model), index))
        else:
            models.append(WholeModelPath("/".join(Path(name).parts[-2:]), absolute_path(name, "model")))
    return models
