"""What a run is: the sections of the YAML file as frozen models. The docstring under a field is its help text.

Rules that tie fields together are in `sft.config_rules`, reading and reporting in `sft.config_file`. Each field says
with a mark of `sft.config_effects` what it affects. Nothing here touches the machine, and nothing imports torch or Ray:
a laptop can plan a job of many nodes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from sft.config_effects import (
    Affects,
    AffectsBudget,
    AffectsEnds,
    AffectsNothing,
    AffectsNumbers,
    AffectsPlan,
    AffectsSplit,
    AffectsStore,
)
from sft.config_evaluation import EvaluateConfig
from sft.config_logging import AlertsConfig, LoggingConfig
from sft.config_names import Was
from sft.config_optimizer import OptimizerConfig
from sft.config_paths import WRITTEN, NamesPath
from sft.config_section import BelowOne, Name, Section, Share, TaskName
from sft.config_sources import ApprovalRule, CsvConfig, GradingConfig
from sft.config_training import DeepSpeedConfig, TrainConfig


class RunConfig(Section):
    """The run's name, folder and seed."""

    name: AffectsNothing[Name]
    """Shown in the progress bar and the report."""
    dir: AffectsNothing[Annotated[Path, WRITTEN]]
    """The run folder: plan, checkpoints, models, report. The same folder resumes the same run."""
    seed: AffectsSplit[int] = 17
    """Every random decision is derived from it, by name."""


Dtype = Literal["bfloat16", "float32"]

DTYPE_BYTES: Mapping[Dtype, int] = {"bfloat16": 2, "float32": 4}
"""Bytes of one number of each dtype."""


def _jinja_file(template: str) -> str | None:
    return None if template == "chatml" else template


class ModelConfig(Section):
    """The model to start from."""

    path: Annotated[str, Affects("store", by_content=True), NamesPath(hub="model")]
    """A Hugging Face folder or Hub id of a causal language model in safetensors."""
    tokenizer: Annotated[str | None, Affects("store", by_content=True), NamesPath(hub="model")] = None
    """A folder or Hub id of the tokenizer. Default: the model's own."""
    dtype: AffectsNumbers[Dtype] = "bfloat16"
    """What the model computes in. The optimizer's copy of the parameters is always float32."""
    chat_template: Annotated[str | None, Affects("store", by_content=True), NamesPath(as_path=_jinja_file)] = None
    """A Jinja file, or `chatml`. Default: the tokenizer's own template, or ChatML if it has none."""
    dropout: AffectsNumbers[Literal["none", "as_configured"]] = "none"
    """Whether training uses the dropout and the noise of the model's config. They are drawn anew for each pack of each
    step, and do not depend on the number of workers."""
    kernels: AffectsNothing[Literal["auto", "liger", "none"]] = "auto"
    """Which fused kernels compute norms, rotary embeddings and gated MLPs on a GPU: the project's own, or those of the
    package `liger-kernel`. A module gets one only where it is proven at the start that the results are the same to
    rounding. Without a GPU, `auto` is `none`."""
    turn_end: Annotated[str | None, Affects("store", by_content=True)] = None
    """For a template that does not end its answers: the control token to put after each learned answer, or `auto` for
    the token that ends the model's generation. A template that ends them is left as it is."""
    trust_remote_code: AffectsNothing[bool] = False
    """Whether code that comes with the model, or with its own tokenizer, may run."""
    trust_tokenizer_code: AffectsNothing[bool] = False
    """Whether code that comes with `tokenizer` may run."""


class TaskColumn(Section):
    """The task of a record is the value of one of its columns: a text, a whole number, or the first item of a list."""

    column: AffectsStore[str]
    """The column's name."""
    default: AffectsStore[TaskName | None] = None
    """The task of records where the column is missing, null or blank. Default: such a record is bad."""


def _task_kind(value: Any) -> str:
    return "column" if isinstance(value, dict | TaskColumn) else "name"


# The form decides which one it is, so that a mistake in one is not also reported as a mistake in the other.
Task = Annotated[Annotated[TaskName, Tag("name")] | Annotated[TaskColumn, Tag("column")], Discriminator(_task_kind)]


Format = Literal[
    "auto", "instruction", "prompt_completion", "messages", "sharegpt", "super_natural_instructions", "seed_tasks",
    "tokens",
]  # fmt: skip
"""Found from the columns; instruction (+ input) → output; prompt → completion (FLAN's inputs → targets); OpenAI's
messages; ShareGPT's conversations; the task files of Super-NaturalInstructions; self-instruct's seed tasks; rows of
token ids."""


class SourceConfig(Section):
    """One place that records come from."""

    name: AffectsStore[Name]
    """Names the source in tables and messages, and the task of its records if `task` is not given."""
    path: Annotated[str, Affects("store", by_content=True, held_by_plan=True), NamesPath(hub="dataset")]
    """A file (.jsonl, .json, .csv, .tsv, .parquet, .arrow; also with .gz, .zst, .bz2 or .xz), a folder or pattern of
    files, a URL that fsspec knows (such as `s3://bucket/data/*.jsonl`), or the id of a data set on the Hub."""
    split: Annotated[str | None, Affects("store", by_content=True, held_by_plan=True)] = None
    """Which split to read of a data set that has several, on the Hub or in a folder here; `all` for every file.
    Default: `train`, or everything if nothing in it names a split."""
    subset: Annotated[str | None, Affects("store", by_content=True, held_by_plan=True)] = None
    """Which configuration to read of a data set that has several, such as `main` of `openai/gsm8k`."""
    revision: Annotated[str | None, Affects("store", by_content=True, held_by_plan=True)] = None
    """Which commit or tag to read of a data set on the Hub."""
    format: Annotated[Format, Affects("store", held_by_plan=True)] = "auto"
    """What the columns mean. `auto` detects the format from their names, and says what it found. If they fit several
    formats, it stops and asks for one."""
    columns: Annotated[dict[str, str], Affects("store", held_by_plan=True)] = {}
    """The format's names → the columns that hold them here, such as `{input: context, output: response}`."""
    csv: AffectsStore[CsvConfig | None] = None
    """How CSV and TSV files are written, if not in the usual way, such as `{delimiter: ";"}`."""
    max_records: Annotated[PositiveInt | None, Affects("store", absent_at=None)] = None
    """Read only this many lines, rows or list items from the beginning. Default: all."""
    task: AffectsStore[Task | None] = None
    """The task's name, or `{column: NAME}` to read it from each record. Default: the source's name; of a constructed
    source the column `task`, where a record has it."""
    constructed: Annotated[bool, Affects("store", absent_at=False)] = False
    """The path is a folder of `sft construct`, or a file of JSON lines that other means made: only what people have
    approved with `sft review` is trained, after their edits."""
    approve: Annotated[ApprovalRule, Affects("store", by_content=True, held_by_plan=True)] = "each"
    """Of a constructed source, which records are approved: those that somebody has accepted (`each`), or all that
    nobody rejects or flags once a random sample is good enough (`{sample: 0.05}`)."""
    grading: GradingConfig = GradingConfig()
    """The columns that hold what answers are measured by, besides the answer itself."""


class HoldoutConfig(Section):
    """What is kept out of training, to measure on."""

    share: AffectsSplit[BelowOne] = 0.02
    """The share of all prompts; a small task may have none. Records with the same prompt are never on both sides."""
    tasks: AffectsSplit[tuple[str, ...]] = ()
    """Tasks never trained on, to measure how the model generalises to unseen tasks."""
    sources: AffectsSplit[tuple[str, ...]] = ()
    """Sources never trained on, such as the test set of a benchmark."""
    decontaminate: AffectsSplit[Annotated[Literal["ignore", "report", "remove"], Was("overlap")]] = "report"
    """`report` counts training examples that share an n-gram with a held-out one; `remove` also leaves them out."""
    ngram_tokens: AffectsSplit[Annotated[PositiveInt, Was("overlap_len_tokens")]] = 13
    """The length of such an n-gram in tokens. Tokens are compared without case and white space."""


class TaskTagConfig(Section):
    """A line in the prompt that says, in natural language, which task it is."""

    text: AffectsStore[str] = "Task type: {task}"
    """`{task}` stands for the task's name, with spaces for underscores."""
    texts: AffectsStore[dict[str, str]] = {}
    """Task → the text to use instead of its name."""
    dropout: AffectsStore[Share] = 0.1
    """The share of prompts without the line, so that the model does not depend on it."""


class DataConfig(Section):
    """Where the records come from, and how they are prepared."""

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """Read in this order."""
    max_len_tokens: AffectsStore[PositiveInt] = 2048
    """The longest example, prompt and answer together."""
    overlong: AffectsStore[Literal["drop", "truncate", "error"]] = "drop"
    """What happens to a longer one. `truncate` leaves out the last turns, or else the end of the longest prompt text,
    never a part of an answer. If that is not enough, the example is dropped. Dropped examples are counted by task. With
    `error`, it is a bad record."""
    bad_records: AffectsStore[Literal["stop", "quarantine"]] = "stop"
    """An unusable record stops the preparation, or is written to `rejected.jsonl` and counted."""
    unreviewed: Annotated[bool, Affects("store", absent_at=False)] = False
    """Also train on made records that nobody has approved, but on none that somebody rejects. The report and the card
    of each model say so. `--unreviewed` on the command line is the same."""
    max_bad_share: AffectsNothing[Share] = 0.05
    """With `quarantine`: if a larger share of a source's records is bad, the preparation stops after all."""
    duplicates: AffectsStore[Literal["keep", "remove", "remove_near"]] = "remove"
    """Whether to keep only the first of examples that are equal except for case and white space. `remove_near` also
    removes examples that are almost equal (MinHash)."""
    near_duplicate_similarity: Annotated[
        float, Field(gt=0.0, le=1.0), Affects("store", only_with=("duplicates", "remove_near"))
    ] = 0.8
    """For `remove_near`: one of two examples is left out if the Jaccard similarity of their word 5-grams is at least
    this."""
    turns: AffectsStore[Literal["strict", "repair"]] = "strict"
    """A conversation with turns out of order is a bad record (`strict`). With `repair`, user turns in a row become one,
    and user turns after the last answer are left out; repaired records are counted."""
    train_on: AffectsStore[Literal["all_assistant", "last_assistant"]] = "all_assistant"
    """Which assistant turns of a conversation are learned; messages with `train: false` never are."""
    train_on_thoughts: AffectsStore[bool] = True
    """Whether the thoughts of a learned answer are learned, too. Otherwise the model only reads them."""
    task_tag: AffectsStore[TaskTagConfig | None] = None
    """A line in the prompt that names the task. Default: none."""
    holdout: HoldoutConfig = HoldoutConfig()
    """What is kept out of training."""
    clusters: AffectsNothing[dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]] = {}
    """Cluster → its tasks, which are alike: `{nli: [anli, rte]}`. Scores of answers are also shown as a mean over
    clusters. A task of none counts as one of its own."""
    cache_dir: AffectsNothing[Annotated[Path, WRITTEN]] = Path("~/.cache/sft")
    """Where token stores are kept. Any run finds them by their content."""
    staging: AffectsNothing[Literal["direct", "node_local"]] = "direct"
    """`direct`: workers read their packs from the token store. `node_local`: each node copies its workers' packs to its
    own disk while it trains, and reads each from there once it is copied."""
    staging_dir: Annotated[str | None, Affects("nothing"), NamesPath(is_of_nodes=True)] = None
    """For `staging: node_local`: a folder on each node's own disk. `~` and variables such as `$SLURM_TMPDIR` are those
    of the node. Default: its temporary folder."""


class MixtureConfig(Section):
    """How much of each task a stage trains on."""

    rates: AffectsPlan[Literal["natural", "equal", "temperature", "weights"]] = "natural"
    """A task's share follows its size, is the same for all, lies in between (size^(1/temperature)), or is given."""
    temperature: AffectsPlan[Annotated[float, Field(ge=1.0)] | None] = None
    """For `rates: temperature`. 1 is natural; a higher value is closer to equal."""
    weights: AffectsPlan[dict[str, PositiveFloat]] = {}
    """For `rates: weights`: task → weight; they need not add up to 1. Only these tasks are trained."""
    tasks: AffectsPlan[Annotated[tuple[str, ...], Field(min_length=1)] | None] = None
    """The tasks of this stage. Default: all that are not held out."""
    unit: AffectsPlan[Literal["supervised_tokens", "examples"]] = "supervised_tokens"
    """The unit of shares, caps and epochs."""
    cap: AffectsPlan[PositiveInt | None] = None
    """A task counts for at most this many units when rates are made (FLAN's rate cap)."""
    min_share: AffectsPlan[BelowOne | None] = None
    """The least rate of each of the stage's own tasks; the others give up what it adds. A task that
    `max_epochs_per_task` limits may still end up below."""
    max_epochs_per_task: AffectsPlan[PositiveFloat | None] = None
    """A task is repeated at most this often; the rest of its share goes to the others."""
    replay: AffectsPlan[dict[str, Share]] = {}
    """Earlier stage → the share of this stage that is drawn from that stage's mixture."""

    @property
    def named_tasks(self) -> tuple[str, ...] | None:
        """The tasks that it names; None: it has all that are not held out."""
        return tuple(self.weights) if self.rates == "weights" else self.tasks


class BudgetConfig(Section):
    """When a stage ends: exactly one of the four."""

    epochs: AffectsBudget[PositiveFloat | None] = None
    """As many units as the stage's tasks hold (each at most `cap`), times this."""
    steps: AffectsBudget[PositiveInt | None] = None
    """Optimizer updates."""
    supervised_tokens: AffectsBudget[PositiveInt | None] = None
    """Tokens in the loss."""
    tokens: Annotated[PositiveInt | None, Affects("budget", absent_at=None)] = None
    """All tokens, including prompts but not padding."""


class StageConfig(Section):
    """One stage of the curriculum; it starts from the model of the one before."""

    name: Annotated[Name, Affects("plan", by_content=True)]
    """Names the stage's folder."""
    mixture: MixtureConfig = MixtureConfig()
    """What it trains on."""
    budget: BudgetConfig
    """When it ends."""
    optimizer: OptimizerConfig
    """How it learns."""
    pack_len_tokens: AffectsPlan[PositiveInt | None] = None
    """Slots of a pack in this stage. Default: that of `train`."""


class FromConfig(Section):
    """A stage of another run; this run starts from its model, and can replay that stage and those before it."""

    run: AffectsNothing[Path]
    """The other run's folder."""
    stage: AffectsNumbers[Name]
    """The stage of that run."""
    step: AffectsNumbers[PositiveInt | None] = None
    """Start from the model or the checkpoint after this many steps of the stage. Default: from the model at its end."""
    model: AffectsNothing[str | None] = None
    """Filled in: the model that is loaded; with `checkpoints`, its parameters are replaced."""
    checkpoints: AffectsNothing[str | None] = None
    """Filled in: where the checkpoint is, if it is one."""
    manifest_sha256: AffectsNumbers[str | None] = None
    """Filled in: identifies the model or checkpoint, wherever it lies."""
    mixtures: Annotated[dict[str, MixtureConfig], Affects("plan", by_content=True, held_by_plan=True)] = {}
    """Filled in: stage → its mixture, for stages that can be replayed. A plan depends on those that it replays."""


class BestConfig(Section):
    """Which of a stage's evaluated models is the best one."""

    score: AffectsEnds[str]
    """A metric of the evaluations, such as `loss`, `token_accuracy`, `score`, `score@3` or `exact_match`. Whether a
    higher or a lower one is better is known of each."""
    task: AffectsEnds[TaskName | None] = None
    """The task whose score it is. Default: that of all tasks together."""
    stop_when_flat: AffectsEnds[PositiveInt | None] = None
    """A stage ends when so many evaluations in a row were not better than the best before them. Its learning rate stays
    as planned. Default: it ends with its budget."""


class CheckpointConfig(Section):
    """How often the state is saved, and which checkpoints are kept."""

    every_steps: AffectsNothing[PositiveInt | None] = 200
    """Steps between two checkpoints. The end of a stage always has one."""
    every_epochs: AffectsNothing[PositiveFloat | None] = None
    """Also save at this distance in epochs, which may be a fraction. All stages then need a budget in epochs."""
    every_minutes: AffectsNothing[PositiveFloat | None] = None
    """Also save when the last checkpoint is older than this."""
    keep_last: AffectsNothing[Annotated[int, Field(ge=1)]] = 2
    """How many of the newest checkpoints are kept. Older ones are deleted after a newer one is published."""
    keep_every_steps: AffectsNothing[PositiveInt | None] = None
    """Checkpoints after multiples of this many steps are never deleted."""
    keep_stage_ends: AffectsNothing[bool] = True
    """Whether a finished stage keeps its last checkpoint beside its model."""
    best: AffectsEnds[BestConfig | None] = None
    """Keep the checkpoint of the best evaluated step, and export it at the end of its stage as `model-best`. Each
    evaluation within a stage then comes with a checkpoint. Default: the end of a stage is its result."""
    check_export: AffectsNothing[bool] = False
    """Whether the model at the end of a stage is loaded by plain transformers and compared with the trained one:
    prompts, log-probabilities, greedy answers. What differs is an event, and no reason to stop. `sft export --check`
    does the same."""
    max_failed_saves: AffectsNothing[PositiveInt] = 3
    """After this many failed saves in a row, each tried several times, the training stops."""
    # Another place has none: training would start over.
    dir: Annotated[str | None, Affects("checkpoints"), WRITTEN] = None
    """Where checkpoints are kept: a folder, or a URL that fsspec knows (such as `s3://bucket/run`). Default: the run
    folder."""
    async_: AffectsNothing[bool] = Field(default=True, alias="async")
    """Whether a thread writes checkpoints while training goes on."""


class SftConfig(Section):
    """The whole training job, without the machines that it runs on."""

    run: RunConfig
    """The run's name, folder and seed."""
    model: ModelConfig
    """The model to start from. With `from`, missing fields are those of that run."""
    from_: AffectsNumbers[FromConfig | None] = Field(default=None, alias="from")
    """A stage of another run to start from. Default: the model as it is."""
    data: DataConfig
    """Where the records come from, and how they are prepared."""
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    """Trained in this order."""
    train: TrainConfig = TrainConfig()
    """The shape of a step."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """ZeRO-3's own settings."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How often the state is saved."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What is measured on held-out data."""
    logging: LoggingConfig = LoggingConfig()
    """Where metrics go."""
    alerts: AlertsConfig = AlertsConfig()
    """What is posted to a webhook."""

    def pack_len_tokens(self, stage_index: int) -> int:
        """The length of a stage's packs."""
        return self.stages[stage_index].pack_len_tokens or self.train.pack_len_tokens

    def replayable(self, stage_index: int) -> dict[str, MixtureConfig]:
        """The mixtures of the stages before this one, by name, including those of the run that it starts from."""
        earlier = self.from_.mixtures if self.from_ else {}
        return {**earlier, **{stage.name: stage.mixture for stage in self.stages[:stage_index]}}
