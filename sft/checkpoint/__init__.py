"""Checkpoints of no world size, and the Hugging Face model at the end of a stage.

    engine.local_state ──copy──▶ thread ──rank-*.safetensors──▶ receipts of all ranks ──manifest, last──▶ published
    newest ──hashes──▶ good: engine.load_local_state · damaged: told, quarantined; the next older one
                       of another version: refused in words, left as it is

Invariants: a checkpoint is published or absent. A failed save loses no training, but too many in a row end it. What is
read is what was written. Nothing is pickled, so reading a checkpoint runs no code.

`storage` is the protocol of a storage of checkpoints; `local_storage` and `remote_storage` implement it. `saver` saves,
`resume` opens, `retention` deletes, `rank_file` is the format, `formats` are those of other versions.
"""
