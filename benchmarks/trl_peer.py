"""The peer of training_speed.py: TRL's SFTTrainer with DeepSpeed ZeRO-3 on CPUs.

usage: torchrun --nproc-per-node 2 trl_peer.py MODEL_DIR DATA.jsonl [--packing] [--pack-len 1024] [--rows 1000]
DATA has Dolly's columns (instruction, context, response). Prints one JSON line: real (not padding) tokens per second
over all ranks, after 3 warm-up steps. Needs trl (1.16 was tried) beside torch, deepspeed, transformers, datasets.
Set OMP_NUM_THREADS=1 with as many processes as cores.
"""

import argparse
import itertools
import json
import time
import warnings

import deepspeed.ops
import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

warnings.filterwarnings("ignore")
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # no minute-long compilation on the first start
WARM_UP_STEPS = 3

args = argparse.ArgumentParser()
args.add_argument("model")
args.add_argument("data")
args.add_argument("--packing", action="store_true")
args.add_argument("--pack-len", type=int, default=1024)
args.add_argument("--micro", type=int, default=None, help="rows per micro-batch; default 8 padded, 2 packed")
args.add_argument("--rows", type=int, default=1000)
args.add_argument("--steps", type=int, default=9)
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


class Clock(TrainerCallback):
    def on_step_end(self, targs, state, control, **_):
        global num_tokens
        if state.global_step == WARM_UP_STEPS:
            self.start, num_tokens = time.perf_counter(), 0
        if state.global_step == args.steps:
            seconds = time.perf_counter() - self.start
            total = torch.tensor([float(num_tokens)])
            torch.distributed.all_reduce(total)
            if targs.process_index == 0:
                print(
                    json.dumps(
                        {
                            "peer": "trl",
                            "packing": args.packing,
                            "micro": micro,
                            "tokens_per_second": round(total.item() / seconds, 1),
                            "seconds_per_step": round(seconds / (args.steps - WARM_UP_STEPS), 3),
                        }
                    ),
                    flush=True,
                )


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
Counting(model=args.model, args=config, train_dataset=dataset, processing_class=tokenizer, callbacks=[Clock()]).train()
