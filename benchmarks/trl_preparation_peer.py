"""The peer of preparation_speed.py: what TRL's SFTTrainer does to a data set before it trains.

usage: python benchmarks/trl_preparation_peer.py TOKENIZER_DIR DATA.jsonl [--processes 2] [--pack-len 2048]
DATA has Dolly's columns (instruction, context, response). Timed is the trainer's own preparation: template with
`{% generation %}` marks, tokenization, mask, truncation, packing; the model is a toy, and its making is not timed.
Prints one JSON line. Needs trl (1.16 was tried).
"""

import argparse
import json
import tempfile
import time
import warnings

import datasets
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

warnings.filterwarnings("ignore")
datasets.disable_progress_bars()
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
)


def conversation(row):
    user = row["instruction"] + ("\n\n" + row["context"] if row["context"] else "")
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": row["response"]}]}


class Timed(SFTTrainer):
    seconds = 0.0

    def _prepare_dataset(self, *args, **kwargs):
        started = time.perf_counter()
        prepared = super()._prepare_dataset(*args, **kwargs)
        Timed.seconds = time.perf_counter() - started
        return prepared


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer")
    parser.add_argument("data")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pack-len", type=int, default=2048)
    options = parser.parse_args()
    with open(options.data, encoding="utf-8") as file:
        rows = datasets.Dataset.from_list([conversation(json.loads(line)) for line in file])
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    tokenizer.chat_template = TEMPLATE
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=options.pack_len,
            packing=True,
            assistant_only_loss=True,
            dataset_num_proc=options.processes,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Timed(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
        num_tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    result = {"peer": "trl", "tokens_per_second": num_tokens / Timed.seconds, "num_tokens": num_tokens}
    print(json.dumps({**result, "seconds": Timed.seconds}), flush=True)


if __name__ == "__main__":
    main()
