"""One table: the keys of Axolotl, LLaMA-Factory and TRL, and the equal of each here.

Messages about such keys, `sft convert` and docs/MIGRATE.md use it. What takes several keys together (the data, the
batch, the machines) is converted in `sft.first_config`; the table then only says where it goes.

Read in the public sources of the three as of August 2026: the schemas of Axolotl, the arguments of LLaMA-Factory, TRL's
`SFTConfig`, `ModelConfig`, `ScriptArguments` and dataset mixture, and transformers' `TrainingArguments`, which the
latter two extend.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from sft.foreign import values as v
from sft.foreign.values import Convert

System = Literal["axolotl", "llama_factory", "trl"]
SYSTEMS: Final[Mapping[System, str]] = {"axolotl": "Axolotl", "llama_factory": "LLaMA-Factory", "trl": "TRL"}

A: Final = frozenset[System]({"axolotl"})
L: Final = frozenset[System]({"llama_factory"})
T: Final = frozenset[System]({"trl"})
LT: Final = L | T
ALL: Final = A | L | T


class ForeignKey(NamedTuple):
    """The equal of another system's key here."""

    systems: frozenset[System]
    ours: str
    """The path of our field, or several separated by commas; empty where there is no equal."""
    note: str
    """What differs, or what to use instead."""
    convert: Convert
    is_needed: bool = True
    """Whether leaving it out loses a setting."""
    differs: bool = False
    """Whether our field means something else, as the note says."""


def _is(systems: frozenset[System], ours: str, convert: Convert | None = None, note: str = "") -> ForeignKey:
    return ForeignKey(systems, ours, note, convert or v.same(*ours.split(", ")))


def _differs(systems: frozenset[System], ours: str, convert: Convert, note: str) -> ForeignKey:
    return ForeignKey(systems, ours, note, convert, differs=True)


def _none(systems: frozenset[System], note: str) -> ForeignKey:
    return ForeignKey(systems, "", note, v.missing)


def _needless(systems: frozenset[System], note: str) -> ForeignKey:
    return ForeignKey(systems, "", note, v.elsewhere, is_needed=False)


_OPTIMIZER = "stages.0.optimizer"
_LENGTH = "data.max_len_tokens, train.pack_len_tokens"
_ROWS = "packs over all workers: multiply by their number; use fewer if a row was one example there"
_LENGTHS = "the longest example, and the tokens that a pack holds"
_FULL = "all parameters are trained: no adapters and no quantized weights. A rate for LoRA is about ten times too high"
_SINKS = "metrics go to metrics.jsonl, and also to TensorBoard, Weights & Biases, MLflow"
_ATTENTION = "the attention is chosen by the device and keeps the examples of a pack apart"
_HOLDOUT = "a part of the prompts, not a number of records; records with one prompt are never on both sides"
_STATES = "`adamw` or `lion`, with states in float32"
_PACKED = "examples are packed, and kept apart, if the model allows it"
_SHARES = "parameters, gradients and optimizer are always split over all workers (ZeRO-3)"
_TRUNCATION = (
    "a longer example is dropped, or with `data.overlong: truncate` loses prompt text, never a part of an answer"
)
_OWN_TEMPLATE = "the tokenizer's own template is used, or a Jinja file, or `chatml`; `sft inspect` shows the result"
_ANSWERS_ONLY = "the loss is over the answers only; there is no setting for more"
_RESUMES = "the same command resumes"
_NO_HUB = "the model is a folder in the run folder: `hf upload` sends it"
_LIGER = "logits are computed in chunks (train.logits_chunk_tokens); the other kernels are torch's"
_LOADS = "packs are read from a prepared store: nothing to tune"

KEYS: Final[Mapping[str, ForeignKey]] = {
    # the model
    "base_model": _is(A, "model.path"),
    "model_name_or_path": _is(LT, "model.path"),
    "model_revision": _none(LT, "download that revision, and name its folder as model.path"),
    "revision_of_model": _none(A, "download that revision, and name its folder as model.path"),
    "tokenizer_config": _is(A, "model.tokenizer"),
    "trust_remote_code": _is(ALL, "model.trust_remote_code", v.switch("model.trust_remote_code", True, None)),
    "bf16": _is(ALL, "model.dtype", v.bfloat16),
    "bfloat16": _is(A, "model.dtype", v.bfloat16),
    "pure_bf16": _differs(L, "model.dtype", v.bfloat16, "the optimizer's copy stays float32"),
    "fp16": _differs(ALL, "model.dtype", v.float16, "float16 is not available: bfloat16 needs no loss scaling"),
    "float16": _differs(A, "model.dtype", v.float16, "float16 is not available: bfloat16 needs no loss scaling"),
    "float32": _is(A, "model.dtype", v.switch("model.dtype", "float32", None)),
    "dtype": _is(T, "model.dtype", v.dtype, "bfloat16 or float32"),
    "torch_dtype": _is(T, "model.dtype", v.dtype, "bfloat16 or float32"),
    "chat_template": _is(A, "model.chat_template", v.chat_template, _OWN_TEMPLATE),
    "chat_template_jinja": _is(A, "model.chat_template", v.chat_template, "it is a file here, not a text"),
    "chat_template_path": _is(
        T, "model.chat_template", v.chat_template, "a Jinja file; a tokenizer is model.tokenizer"
    ),
    "template": _is(L, "model.chat_template", v.chat_template, _OWN_TEMPLATE),
    "eos_token": _differs(
        T,
        "model.turn_end",
        v.same("model.turn_end"),
        "it ends the answers only where the template ends them with nothing",
    ),
    "attn_implementation": _needless(A | T, _ATTENTION),
    "flash_attention": _needless(A, _ATTENTION),
    "sdp_attention": _needless(A, _ATTENTION),
    "flash_attn": _needless(L, _ATTENTION),
    "use_liger_kernel": _needless(LT, "logits are computed in chunks (train.logits_chunk_tokens)"),
    "enable_liger_kernel": _needless(L, "logits are computed in chunks (train.logits_chunk_tokens)"),
    "plugins": _none(A, "there are none"),
    **dict.fromkeys(("model_type", "tokenizer_type"), _needless(A, "found from the model's own files")),
    **dict.fromkeys(("liger_rms_norm", "liger_glu_activation", "liger_layer_norm", "liger_rope"), _needless(A, _LIGER)),
    "liger_fused_linear_cross_entropy": _needless(A, _LIGER),
    "processor_type": _none(A, "only text is trained on"),
    "eot_tokens": _needless(A, "the end of an answer is found in the template; else it is model.turn_end"),
    "rope_scaling": _none(A | L, "set it in the model's config.json"),
    "special_tokens": _none(A, "special tokens are the tokenizer's; packs need no padding token"),
    "tokens": _none(A, "add tokens to the model and its tokenizer before, and save both"),
    "add_tokens": _none(L, "add tokens to the model and its tokenizer before, and save both"),
    "resize_vocab": _none(L, "add tokens to the model and its tokenizer before, and save both"),
    # what is trained
    "stage": _needless(L, "there is only instruction tuning"),
    "finetuning_type": ForeignKey(L, "", _FULL, lambda value, theirs: None if value == "full" else {}),
    "adapter": _none(A, _FULL),
    "use_peft": _none(T, _FULL),
    **dict.fromkeys(("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"), _none(A | T, _FULL)),
    **dict.fromkeys(("lora_target_linear", "lora_model_dir", "lora_modules_to_save"), _none(A, _FULL)),
    **dict.fromkeys(("lora_rank", "lora_target", "adapter_name_or_path", "quantization_bit"), _none(L, _FULL)),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _none(A | T, _FULL)),
    "unfrozen_parameters": _none(A, "all parameters are trained"),
    "neftune_noise_alpha": _none(ALL, "no noise is added to embeddings"),
    "label_smoothing_factor": _none(LT, "the loss is the plain negative log-likelihood"),
    "loss_type": _none(T, "the loss is the plain negative log-likelihood"),
    # the data
    "datasets": _is(
        A | T, "data.sources", v.elsewhere, "a list of sources, each with name, path and, if need be, format"
    ),
    "dataset": _is(
        L, "data.sources", v.elsewhere, "each name is an entry of their dataset_info.json: its file is `path`"
    ),
    "dataset_dir": _is(L, "data.sources", v.elsewhere, "the folder of dataset_info.json; each source has its `path`"),
    "dataset_name": _is(T, "data.sources", v.elsewhere, "`path` of a source"),
    "dataset_config": _is(T, "data.sources", v.elsewhere, "`subset` of a source"),
    "dataset_train_split": _is(T, "data.sources", v.elsewhere, "`split` of a source"),
    "dataset_test_split": _is(T, "data.holdout.sources", v.elsewhere, "a source of its own that is held out"),
    "eval_dataset": _is(L, "data.holdout.sources", v.elsewhere, "a source of its own that is held out"),
    "test_datasets": _is(A, "data.holdout.sources", v.elsewhere, "sources of their own that are held out"),
    "dataset_text_field": _is(T, "data.sources", v.elsewhere, "plain text is not trained on: prompts and answers are"),
    "interleave_probs": _is(L, "stages.0.mixture.weights", v.elsewhere, "shares of supervised tokens, by task"),
    "mix_strategy": _is(L, "stages.0.mixture.rates", v.elsewhere, "`natural`, or `weights`"),
    "max_samples": _is(L, "data.sources.0.max_records", v.count("data.sources.0.max_records"), "of each source"),
    "sequence_len": _is(A, _LENGTH, v.count(*_LENGTH.split(", ")), _LENGTHS),
    "cutoff_len": _is(L, _LENGTH, v.count(*_LENGTH.split(", ")), _LENGTHS),
    "max_length": _is(T, _LENGTH, v.count(*_LENGTH.split(", ")), _LENGTHS),
    "max_seq_length": _is(T, _LENGTH, v.count(*_LENGTH.split(", ")), _LENGTHS),
    "model_max_length": _is(L, _LENGTH, v.count(*_LENGTH.split(", ")), _LENGTHS),
    "excess_length_strategy": _is(A, "data.overlong", v.elsewhere, _TRUNCATION),
    "truncation_mode": _is(T, "data.overlong", v.elsewhere, _TRUNCATION),
    "val_set_size": _differs(A, "data.holdout.share", v.part("data.holdout.share"), _HOLDOUT),
    "val_size": _differs(L, "data.holdout.share", v.part("data.holdout.share"), _HOLDOUT),
    "test_split_size": _differs(T, "data.holdout.share", v.part("data.holdout.share"), _HOLDOUT),
    "train_on_inputs": _none(A, _ANSWERS_ONLY),
    "train_on_prompt": _none(L, _ANSWERS_ONLY),
    "mask_history": _is(L, "data.train_on", v.last_only),
    "assistant_only_loss": _needless(T, _ANSWERS_ONLY),
    "completion_only_loss": _needless(T, _ANSWERS_ONLY),
    "default_system": _none(L, "write the system turn into the records, or the template"),
    "default_system_message": _none(A, "write the system turn into the records, or the template"),
    "dataset_exact_deduplication": _is(A, "data.duplicates", v.switch("data.duplicates", "remove", "keep")),
    "sample_packing": _is(A, "train.packing", v.elsewhere, _PACKED),
    **dict.fromkeys(("eval_sample_packing", "pad_to_sequence_len"), _needless(A, _PACKED)),
    "packing": _is(LT, "train.packing", v.elsewhere, _PACKED),
    "eval_packing": _needless(T, _PACKED),
    "packing_strategy": _needless(T, _PACKED),
    "padding_free": _needless(T, _PACKED),
    "neat_packing": _is(L, "train.packing", v.elsewhere, _PACKED),
    "group_by_length": _needless(ALL, "packs are full: nothing is grouped"),
    "dataset_prepared_path": _is(A, "data.cache_dir", v.elsewhere, "stores are found again by their content"),
    "tokenized_path": _is(L, "data.cache_dir", v.elsewhere, "stores are found again by their content"),
    "dataset_num_proc": _needless(A | T, _LOADS),
    **dict.fromkeys(("preprocessing_num_workers", "overwrite_cache"), _needless(L, _LOADS)),
    **dict.fromkeys(("streaming", "dataloader_num_workers", "dataloader_pin_memory"), _needless(ALL, _LOADS)),
    "remove_unused_columns": _needless(ALL, _LOADS),
    "skip_prepare_dataset": _needless(A, _LOADS),
    "shuffle_merged_datasets": _needless(A, "the order is always shuffled"),
    "shuffle_dataset": _needless(T, "the order is always shuffled"),
    # the step
    "micro_batch_size": _is(A, "train.packs_per_step, train.packs_per_micro_batch", v.rows_per_step, _ROWS),
    "per_device_train_batch_size": _is(LT, "train.packs_per_step, train.packs_per_micro_batch", v.rows_per_step, _ROWS),
    "gradient_accumulation_steps": _is(ALL, "train.packs_per_step", v.rows_per_step, _ROWS),
    "batch_size": _is(A, "train.packs_per_step", v.count("train.packs_per_step"), _ROWS),
    "eval_batch_size": _needless(A, "as in training"),
    "per_device_eval_batch_size": _needless(LT, "as in training"),
    "auto_find_batch_size": _none(ALL, "`sft plan` shows what fits: train.packs_per_micro_batch"),
    "gradient_checkpointing": _is(ALL, "train.activation_checkpointing", v.switch("train.activation_checkpointing")),
    "activation_checkpointing": _is(LT, "train.activation_checkpointing", v.switch("train.activation_checkpointing")),
    "disable_gradient_checkpointing": _is(
        L, "train.activation_checkpointing", v.switch("train.activation_checkpointing", False, None)
    ),
    "gradient_checkpointing_kwargs": _needless(ALL, "each layer is computed again as a whole"),
    "activation_offloading": _none(A | T, "activations are computed again, not moved to the host"),
    "torch_compile": _none(ALL, "nothing is compiled"),
    "tf32": _needless(ALL, "the model computes in bfloat16"),
    # how it learns
    "learning_rate": _is(ALL, f"{_OPTIMIZER}.lr", v.positive(f"{_OPTIMIZER}.lr")),
    "lr_scheduler": _is(A, f"{_OPTIMIZER}.schedule", v.schedule, "cosine, linear or constant"),
    "lr_scheduler_type": _is(LT, f"{_OPTIMIZER}.schedule", v.schedule, "cosine, linear or constant"),
    "lr_scheduler_kwargs": _is(ALL, f"{_OPTIMIZER}.min_lr_ratio", v.elsewhere, "of them, where the rate ends"),
    "cosine_min_lr_ratio": _is(A, f"{_OPTIMIZER}.min_lr_ratio", v.part(f"{_OPTIMIZER}.min_lr_ratio")),
    "warmup_ratio": _is(ALL, f"{_OPTIMIZER}.warmup_ratio", v.warmup_ratio),
    "warmup_steps": _is(ALL, f"{_OPTIMIZER}.warmup_steps", v.warmup),
    "weight_decay": _is(ALL, f"{_OPTIMIZER}.weight_decay"),
    "adam_beta1": _is(ALL, f"{_OPTIMIZER}.betas", v.betas),
    "adam_beta2": _is(ALL, f"{_OPTIMIZER}.betas", v.betas),
    "adam_epsilon": _is(ALL, f"{_OPTIMIZER}.eps", v.epsilon),
    "max_grad_norm": _is(ALL, f"{_OPTIMIZER}.max_grad_norm", v.max_grad_norm),
    "optim": _is(LT, f"{_OPTIMIZER}.name", v.optimizer, _STATES),
    "optimizer": _is(A, f"{_OPTIMIZER}.name", v.optimizer, _STATES),
    "num_epochs": _is(A, "stages.0.budget.epochs", v.epochs),
    "num_train_epochs": _is(LT, "stages.0.budget.epochs", v.epochs),
    "max_steps": _is(ALL, "stages.0.budget.steps", v.count("stages.0.budget.steps")),
    "seed": _is(ALL, "run.seed"),
    "data_seed": _needless(LT, "run.seed is the seed of everything"),
    # what is saved, measured and shown
    "output_dir": _is(ALL, "run.dir"),
    "run_name": _is(LT, "run.name", v.run_name),
    "wandb_name": _is(A, "run.name", v.run_name),
    "save_steps": _is(ALL, "checkpoint.every_steps", v.every("checkpoint")),
    "save_strategy": _is(ALL, "checkpoint.every_epochs", v.strategy("checkpoint")),
    "saves_per_epoch": _is(A, "checkpoint.every_epochs", v.times_per_epoch("checkpoint")),
    "save_total_limit": _is(ALL, "checkpoint.keep_last", v.count("checkpoint.keep_last")),
    "save_only_model": _none(
        ALL,
        "checkpoints hold all that a run needs to continue; the model is exported at a stage's end, and by "
        "`sft export` from any checkpoint",
    ),
    "eval_steps": _is(ALL, "evaluate.every_steps", v.every("evaluate")),
    "eval_strategy": _differs(
        ALL, "evaluate.every_epochs", v.strategy("evaluate"), "before and after a stage in any case"
    ),
    "evaluation_strategy": _differs(
        ALL, "evaluate.every_epochs", v.strategy("evaluate"), "before and after a stage in any case"
    ),
    "evals_per_epoch": _is(A, "evaluate.every_epochs", v.times_per_epoch("evaluate")),
    **dict.fromkeys(
        ("loss_watchdog_threshold", "loss_watchdog_patience"),
        _none(A, "a loss that is not finite stops the run (train.non_finite); one that is out of line is flagged"),
    ),
    "load_best_model_at_end": _none(ALL, "each stage exports its last model"),
    "early_stopping_patience": _none(A, "a stage ends with its budget"),
    "resume_from_checkpoint": _needless(ALL, _RESUMES),
    "auto_resume_from_checkpoints": _needless(A, _RESUMES),
    "overwrite_output_dir": _needless(L, "a run folder is resumed, never overwritten"),
    **dict.fromkeys(
        ("logging_steps", "logging_strategy", "logging_first_step"), _needless(ALL, "every step is recorded")
    ),
    "plot_loss": _needless(L, "`sft report` plots it"),
    "report_to": _is(LT, "logging", v.report_to, _SINKS),
    "use_tensorboard": _is(A, "logging.tensorboard", v.switch("logging.tensorboard")),
    "wandb_project": _is(A, "logging.wandb.project"),
    "wandb_entity": _is(A, "logging.wandb.entity"),
    "wandb_watch": _none(A, "gradients of single parameters are not logged"),
    "wandb_log_model": _none(A, _NO_HUB),
    "use_wandb": _is(A, "logging.wandb", v.elsewhere, "a section with the project"),
    "use_mlflow": _is(A, "logging.mlflow", v.elsewhere, "a section"),
    "mlflow_tracking_uri": _is(A, "logging.mlflow.tracking_uri"),
    "mlflow_experiment_name": _is(A, "logging.mlflow.experiment"),
    "project": _is(T, "logging.wandb.project", v.elsewhere, "with `report_to: wandb` there"),
    **dict.fromkeys(("push_to_hub", "hub_strategy"), _none(LT, _NO_HUB)),
    "hub_model_id": _none(ALL, _NO_HUB),
    # where it runs
    "deepspeed": _is(ALL, "deepspeed", v.elsewhere, "a section, not a file; ZeRO-3 is always on"),
    "accelerate_config": _needless(T, _SHARES),
    "num_processes": _is(T, "cluster.workers", v.count("cluster.workers")),
    "fsdp": _needless(ALL, _SHARES),
    "fsdp_config": _needless(ALL, _SHARES),
    "fsdp_version": _needless(A, _SHARES),
    "ddp_timeout": _is(
        ALL, "cluster.hang_timeout_seconds", v.elsewhere, "a rank without progress for this long ends the attempt"
    ),
    "ddp_find_unused_parameters": _needless(ALL, _SHARES),
    "ray_num_workers": _is(A | L, "cluster.workers", v.count("cluster.workers")),
    "tensor_parallel_size": _none(A, _SHARES),
    **dict.fromkeys(
        ("context_parallel_size", "sequence_parallel_degree"),
        _is(A, "train.sequence_parallel", v.elsewhere, "`cluster.workers` must be a multiple of it"),
    ),
    **dict.fromkeys(("do_train", "do_eval"), _needless(L, "`sft train` trains and measures")),
}
"""Their key → its equal here."""

DEFAULTS: Final[Mapping[System, Mapping[str, Any]]] = {
    "axolotl": {
        "sequence_len": 512, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 1,
        "lr_scheduler": "cosine", "warmup_ratio": 0.03, "weight_decay": 0.0, "adam_beta2": 0.999,
        "gradient_checkpointing": False, "val_set_size": 0.0, "save_strategy": "epoch",
    },
    "llama_factory": {
        "cutoff_len": 2048, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_train_epochs": 3.0,
        "learning_rate": 5e-5, "lr_scheduler_type": "linear", "warmup_ratio": 0.0, "weight_decay": 0.0,
        "adam_beta2": 0.999, "val_size": 0.0, "save_steps": 500,
    },
    "trl": {
        "max_length": 1024, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_train_epochs": 3.0,
        "learning_rate": 2e-5, "lr_scheduler_type": "linear", "warmup_ratio": 0.0, "weight_decay": 0.0,
        "adam_beta2": 0.999, "test_split_size": 0.0, "save_steps": 500,
    },
}  # fmt: skip
"""The value of a key that is not given, if it differs from our default."""

SAME_MATTER: Final = (
    {"warmup_ratio", "warmup_steps"},
    {"num_epochs", "num_train_epochs", "max_steps"},
    {"save_steps", "save_strategy", "saves_per_epoch"},
    {"sequence_len"}, {"cutoff_len", "model_max_length"}, {"max_length", "max_seq_length"},
    {"gradient_checkpointing", "disable_gradient_checkpointing", "activation_checkpointing"},
)  # fmt: skip
"""Keys with the same meaning: if one is given, the default of another does not count."""
