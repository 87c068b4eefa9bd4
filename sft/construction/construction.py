"""A construction from its config: what is wanted and shown, what is asked, and the folder that is written.

SftConfig, ConstructConfig, TokenStore ──plan_work──▶ Work ──construct──▶ the folder's files
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sft.atomic_files import fingerprint
from sft.config import SftConfig
from sft.config_construction import ConstructConfig, TeacherConfig
from sft.config_words import did_you_mean
from sft.construction.asking import Asking
from sft.construction.away import Waiting
from sft.construction.counts import Counts
from sft.construction.draft_losses import DraftLosses
from sft.construction.filters.chain import filtering
from sft.construction.filters.difficulty import Difficulty
from sft.construction.filters.filter import Filter, Surroundings
from sft.construction.filters.held_out_texts import read_held_out
from sft.construction.filters.judge import Graded
from sft.construction.filters.registry import read_filters
from sft.construction.folder import ConstructionFolder
from sft.construction.grading import Grading
from sft.construction.output import write_output
from sft.construction.prompts import Prompts
from sft.construction.recipes.material import Material
from sft.construction.recipes.recipe import Recipe, Seed
from sft.construction.recipes.registry import read_recipes
from sft.construction.replaying import MEASURING, Progress, Replaying
from sft.construction.request_log import RequestLog, open_log
from sft.construction.seeds import not_taken, read_seeds, seeds_of
from sft.construction.spending import Spending
from sft.construction.task_choice import choose_tasks, tasks_field
from sft.construction.teacher import ServedTeacher, Teacher
from sft.construction.teacher_choice import judge_of, teachers_of
from sft.construction.wanted import supervised_by_task
from sft.construction.work import Part, Work
from sft.data.block_preparer import BlockPreparer
from sft.data.planning.trainable import trainable_examples
from sft.data.token_store import TokenStore
from sft.draft import Draft
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from sft.errors import UserError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Constructed:
    """What was written."""

    counts: Counts
    by_part: Mapping[tuple[str, str], Counts]
    spending: Spending
    error: UserError | None
    """Which teachers could not be asked, and what waits for them."""


def check_sources(config: SftConfig, construct: ConstructConfig) -> None:
    """Check what the recipes show: sources of the config, and files of the user.

    Raises:
        UserError: a source is not there, or is made by this construction itself; or names all that is wrong with files.
    """
    names, recipes = [source.name for source in config.data.sources], read_recipes(construct.recipes)
    for recipe, material in zip(recipes, _materials(recipes), strict=True):
        if any(Path(passage.path).absolute().is_relative_to(construct.out) for passage in material.passages):
            raise UserError(
                f"construct.recipes: {recipe.title}.documents: some lie in construct.out, {construct.out}. Give "
                f"others: what is asked must not change by what is made."
            )
        for name in recipe.seeds:
            if name not in names:
                way_out = did_you_mean(name, names)
                raise UserError(f"construct.recipes: {recipe.title}.seeds: there is no source {name}; {way_out}")
    for name in construct.card.seed_licences:
        if name not in names:
            way_out = did_you_mean(name, names)
            raise UserError(f"construct.card.seed_licences: there is no source {name}; {way_out}")
    for source in config.data.sources:
        if "://" not in source.path and Path(source.path).is_relative_to(construct.out):
            raise UserError(
                f"construct.out: {construct.out} is what the source {source.name} reads. Construct by a config without "
                f"this source: a teacher is shown records of people, and what is asked must not change by what is made."
            )


def plan_work(config: SftConfig, construct: ConstructConfig, store: TokenStore, preparer: BlockPreparer) -> Work:
    """What is to be made of which tasks, and what is shown for it.

    Raises:
        UserError: tasks, seeds or prompts are not there.
    """
    prompts, recipes = Prompts(construct.prompts), read_recipes(construct.recipes)
    supervised = supervised_by_task(store, config.data.holdout)
    chosen = choose_tasks(recipes, supervised, lambda tasks: read_seeds(config, store, preparer, tasks))
    seeds = chosen.seeds
    materials, num_hidden = _shown(recipes, config, store, preparer)
    parts = [
        Part(
            recipe,
            task,
            num,
            () if recipe.new_task else seeds_of(recipe, task, seeds[task], tasks_field(recipe)),
            teachers_of(recipe, construct.teachers),
            material,
        )
        for recipe, counts, material in zip(recipes, chosen.wanted, materials, strict=True)
        for task, num in counts.items()
    ]
    no_seeds = sum((of_task.left_out for of_task in seeds.values()), Counter[str]())
    for part in {(part.recipe.kind, part.task): part for part in parts}.values():
        if part.task in seeds:
            no_seeds += not_taken(part.recipe, seeds[part.task])
    return Work(parts, prompts, config.run.seed, num_hidden, no_seeds, chosen.without_seeds)


def surroundings_of(
    config: SftConfig, store: TokenStore, preparer: BlockPreparer, work: Work, out: Path
) -> Surroundings:
    """What filters compare drafts with: the seeds, the prompts that are trained on, and what is held out."""
    holdout = config.data.holdout
    trained = np.sort(np.asarray(store.prompt_hashes)[trainable_examples(store, holdout)])
    tokenizer = preparer.pipeline.tokenizer
    return Surroundings(
        out,
        _seeds(work),
        trained,
        of_held_out=lambda: read_held_out(store, holdout, tokenizer.plain).of,
        special_tokens=tokenizer.special_tokens,
    )


def construct_all(
    work: Work,
    construct: ConstructConfig,
    tell: Callable[[Progress], None] = lambda progress: None,
    patience: Patience | None = None,
    around: Surroundings | None = None,
    local: Mapping[int, Teacher] | None = None,
    losses: Sequence[DraftLosses] = (),
) -> Constructed:
    """Ask for what the log lacks, and write the folder; whoever calls this holds its lock.

    Args:
        work: what is wanted.
        construct: its section of the config.
        tell: called while it goes on.
        patience: of the clients; the `at_once` of a teacher counts before it.
        around: what filters compare with. Default: the seeds.
        local: the teachers that are not served, by number.
        losses: measure drafts, for the filter `difficulty` (see `Surroundings.losses`).

    Raises:
        UserError: no teacher can be asked at all, the folder cannot be written, or a model cannot be loaded.
        TrainingError: the workers that measure losses are lost.
    """
    folder = ConstructionFolder(construct.out)
    folder.claim()
    spending = Spending(construct.budget)
    with open_log(folder.log, spending) as log:
        found = {i: _served(given, log, patience) for i, given in enumerate(construct.teachers) if given.endpoint}
        served = {i: client for i, (client, _) in found.items()}
        teachers = {i: ServedTeacher(client, client.at_once) for i, client in served.items()} | dict(local or {})
        asking = Asking([teachers[i] for i in sorted(teachers)], log, spending)
        asking.away.update((i, error) for i, (_, error) in found.items() if error is not None)
        filters = read_filters(construct.filters)
        around = around or Surroundings(folder.path, _seeds(work))
        judge = next((given for given in filters if isinstance(given, Graded)), None)
        grading = None if judge is None else Grading(judge, asking, judge_of(judge, construct.teachers))
        replaying = Replaying(work, asking, served, tell)

        def prepare(dear: Filter, drafts: Callable[[], Iterator[Draft]], num: int) -> None:
            if isinstance(dear, Difficulty):
                for i, of_model in enumerate(losses):

                    def told(num_done: int, before: int = i * num) -> None:
                        tell(Progress(MEASURING, before + num_done, len(losses) * num, spending))

                    of_model.measure(drafts(), told)
            elif isinstance(dear, Graded) and grading is not None:
                replaying.ask_for_grades(grading.course(drafts()), num)

        around = replace(
            around,
            losses=[of_model.scores for of_model in losses],
            grade=None if grading is None else grading.grade,
            prepare=prepare,
        )
        with filtering(filters, around) as passing:
            ended = passing.outcomes(replaying.ended())
            waiting = Waiting(asking)
            about = {**_about(work, construct, asking, log), "noted": passing.noted}
            counts, by_part = write_output(folder, waiting.counted(ended), about)
    return Constructed(counts, by_part, spending, waiting.error)


def _seeds(work: Work) -> list[tuple[str, Seed]]:
    return list({(part.task, seed.id): (part.task, seed) for part in work.parts for seed in part.seeds}.values())


def _served(
    given: TeacherConfig, log: RequestLog, patience: Patience | None
) -> tuple[EndpointClient, EndpointError | None]:
    """The client of a teacher; one without a name of its model is asked for it, and may be away."""
    endpoint = Endpoint(given.endpoint, given.model, given.api_key_env)
    own = {} if given.at_once is None else {"at_once": given.at_once}
    client = EndpointClient(endpoint, replace(patience or Patience(), **own))
    if not endpoint.model:
        try:
            client.check()
        except EndpointError as error:
            if endpoint.url not in log.models:
                return client, error
            # All may be paid already.
            client.endpoint = replace(endpoint, model=log.models[endpoint.url])
    return client, None


def _about(work: Work, construct: ConstructConfig, asking: Asking, log: RequestLog) -> dict[str, Any]:
    """What a person or a program should know of how it was made. Without secrets: a config holds none."""
    given: dict[str, Any] = construct.model_dump(mode="json", exclude={"out", "card"})
    for teacher in given["teacher"] if isinstance(given["teacher"], list) else filter(None, [given["teacher"]]):
        del teacher["at_once"]  # it changes nothing
    spending = log.spending
    return {
        "version": _VERSION,
        "fingerprint": fingerprint(given),
        "construct": given,
        "filters": {one.name: one.model_dump(mode="json") for one in read_filters(construct.filters)},
        "card": construct.card.model_dump(mode="json"),
        "sources": dict(Counter(seed.source for _, seed in _seeds(work))),
        "teachers": [teacher.title for teacher in asking.teachers],
        "seed": work.run_seed,
        "num_requests": len(log),
        "num_probes": log.num_probes,
        "num_prompt_tokens": spending.tokens.prompt,
        "num_reply_tokens": spending.tokens.reply,
        "cost": spending.cost,
        "reached": spending.reached,
        "num_passages_not_shown": dict(work.num_hidden),
        "no_seeds": dict(work.no_seeds),
        "tasks_without_seeds": {recipe: [*tasks] for recipe, tasks in work.without_seeds.items()},
    }


def _materials(recipes: Sequence[Recipe]) -> list[Material]:
    found, problems = [], []
    for recipe in recipes:
        try:
            found.append(recipe.material())
        except UserError as error:
            problems.append(f"construct.recipes: {recipe.title}.{error}")
    if problems:
        raise UserError("\n".join(problems))
    return found


def _shown(
    recipes: Sequence[Recipe], config: SftConfig, store: TokenStore, preparer: BlockPreparer
) -> tuple[Sequence[Material], Mapping[str, int]]:
    """What may be shown: no passage that has something of what is held out; and of each recipe, how many have."""
    materials = _materials(recipes)
    if not any(material.passages for material in materials):
        return materials, {}
    held_out = read_held_out(store, config.data.holdout, preparer.pipeline.tokenizer.plain)
    shown, num_hidden = [], dict[str, int]()
    for recipe, material in zip(recipes, materials, strict=True):
        is_touched = held_out.touches([passage.text for passage in material.passages])
        passages = tuple(passage for passage, no in zip(material.passages, is_touched, strict=True) if not no)
        if material.passages and not passages:
            raise UserError(
                f"construct.recipes: {recipe.title}.documents: each passage shares {config.data.holdout.ngram_tokens} "
                f"tokens in a row with a held-out example, so none may be shown. Give other documents."
            )
        shown.append(replace(material, passages=passages))
        if len(passages) < len(material.passages):
            num_hidden[recipe.title] = len(material.passages) - len(passages)
    return shown, num_hidden
