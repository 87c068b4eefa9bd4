"""The peer of training_speed.py: TRL's SFTTrainer with DeepSpeed ZeRO-3 on CPUs, in turn with other sides.

usage: torchrun --nproc-per-node 2 trl_peer.py MODEL_DIR DATA.jsonl [--packing] [--pack-len 1024] [--rows 1000]
DATA has Dolly's columns (instruction, context, response). Real tokens, not padding, are counted. Its steps wait for
their turns (`benchmarks.turns`). Needs trl (1.16 was tried) beside torch, deepspeed, transformers, datasets.
Set OMP_NUM_THREADS=1 with as many processes as cores.
"""

import argparse
import itertools
import json
import os
import warnings

import deepspeed.ops
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.turns import Turn

warnings.filterwarnings("ignore")
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # no minute-long compilation on the first start

args = argparse.ArgumentParser()
args.add_argument("model")
args.add_argument("data")
args.add_argument("--packing", action="store_true")
args.add_argument("--pack-len", type=int, default=1024)
args.add_argument("--micro", type=int, default=None, help="rows per micro-batch; default 8 padded, 2 packed")
args.add_argument("--rows", type=int, default=1000)
args.add_argument("--steps", type=int, default=1000)
args = args.parse_args()
micro = args.micro or (2 if args.packing else 8)


def conversation(row):
    user = row["instruction"] + ("\n\n" + row["context"] if row["context"] else "")
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": row["response"]}]}


with open(args.data, encoding="utf-8") as file:
    rows = [json.loads(line) for line in itertools.islice(file, args.rows)]
dataset = Dataset.from_list([conversation(row) for row in rows])
tokenizer = AutoTokenizer.from_pretrained(args.model)
zero3 = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 10000},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "bf16": {"enabled": False},
}
num_tokens = 0


class Waiting(TrainerCallback):
    def __init__(self):
        self.turn = Turn()

    def on_step_begin(self, targs, state, control, **_):
        global num_tokens
        if not self.turn.ask(num_tokens):
            os._exit(0)  # enough was measured
        num_tokens = 0


class Counting(SFTTrainer):
    def compute_loss(self, model, inputs, *a, **k):
        global num_tokens
        mask = inputs.get("attention_mask")
        num_tokens += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
        return super().compute_loss(model, inputs, *a, **k)


config = SFTConfig(
    output_dir="trl_baseline_out",
    max_steps=args.steps,
    max_length=args.pack_len,
    packing=args.packing,
    per_device_train_batch_size=micro,
    learning_rate=1e-3,
    assistant_only_loss=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    report_to="none",
    save_strategy="no",
    logging_steps=1000,
    deepspeed=zero3,
    disable_tqdm=True,
)
Counting(
    model=args.model, args=config, train_dataset=dataset, processing_class=tokenizer, callbacks=[Waiting()]
).train()
