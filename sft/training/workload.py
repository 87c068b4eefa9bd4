"""What must be on disk before the ranks start: the token store and the plan of every stage.

The first process that asks makes it; others that ask meanwhile wait for its lock and open what it made.
"""

from collections.abc import Generator, Iterator
from functools import partial

from filelock import FileLock

from sft.config import SftConfig
from sft.data.block_preparer import BlockPreparer, Executor, PreparedBlock, prepare_in_threads
from sft.data.made_records import made_of_run
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.plan_inputs import check_data
from sft.data.planning.stage_plan import plan_heldout, plan_stages
from sft.data.planning.trainable import unseen_tasks
from sft.data.preparation import Report, build_store
from sft.data.reading.blocks import Block
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.dealing import CostRates
from sft.errors import UserError
from sft.evaluation.judged_answers import check_scores
from sft.questions.question_set import make_questions, open_questions
from sft.run_folder import RunFolder
from sft.sizing.flops import forward_rates
from sft.sizing.read_shape import read_shape
from sft.training.extension import set_end_aside
from sft.training.prepared import Workload
from sft.training.run_record import check_run, claim_run_folder, record_made_data, write_run_record
from sft.training.watched_scores import check_watched


def refuse_to_prepare(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    """An executor for a rank that others wait for: it uses prepared blocks, and prepares none.

    Raises:
        UserError: a block is not prepared.
    """
    for _ in blocks:
        raise UserError("The data is not prepared, and no rank may do it while others wait. Run `sft prepare` first.")
    yield from ()


def prepare_workload(
    config: SftConfig, report: Report = lambda progress: None, executor: Executor = prepare_in_threads
) -> tuple[Workload, TokenStore, list[PackPlan]]:
    """Make the token store and the plans that are not there yet.

    Raises:
        UserError: the data or the mixture cannot be used; nothing half-written stays.
    """
    recorded = check_run(config)
    run = RunFolder(config.run.dir)
    recipe = StoreRecipe.of(config.data, config.model)
    check_data(run, run.stage(0, config.stages[0].name).packs, recipe.inputs)
    store = build_store(recipe, report, executor)
    claim_run_folder(run)
    record_made_data(config, made_of_run(store.manifest, recipe.passed))
    try:
        planning = FileLock(run.planning_lock).acquire()
    except OSError as error:
        raise UserError(f"run.dir: {run.planning_lock} cannot be written: {error.strerror}") from error
    with planning:
        plans = plan_stages(
            config,
            store,
            recorded["stages"] if recorded else (),
            partial(set_end_aside, run, config.checkpoint),
            partial(_cost_rates, config.model.path),
        )
        heldout = plan_heldout(config, store)
        questions = None
        if heldout is not None:
            questions = make_questions(run.questions, config, store, heldout, recipe.preparer)
        if questions is not None:
            check_scores(open_questions(questions), config.evaluate)
        check_watched(config, store, heldout, questions)
        write_run_record(config)
    path = heldout.path if heldout is not None else None
    unseen = unseen_tasks(config, store)
    return Workload(store.path, path, tuple(plan.path for plan in plans), questions, unseen), store, plans


def _cost_rates(model_path: str) -> CostRates | None:
    """What a pack costs the model; None if its shape is not known."""
    try:
        shape, _notes = read_shape(model_path)
    except UserError:
        return None
    return forward_rates(shape)
