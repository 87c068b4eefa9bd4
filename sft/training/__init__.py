"""Runs the curriculum: stage after stage, each planned before it is trained, each from the model of the last.

    curriculum ──stage config──▶ stage ──engine, loader, schedule──▶ loop ──▶ checkpoints, model, evaluation

`python -m sft.training CONFIG` does it under plain torchrun; the launcher does it under Ray.
"""
