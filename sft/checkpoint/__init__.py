"""Checkpoints of no world size, and the Hugging Face model at the end of a stage.

    engine.local_state ──copy──▶ thread ──rank-*.safetensors──▶ receipts of all ranks ──manifest, rename──▶ published

Invariant: a checkpoint is published or absent. Nothing is pickled, so reading one runs no code.
"""
