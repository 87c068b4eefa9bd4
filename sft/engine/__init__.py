"""Engines: what turns the micro-batches of a step into an update, and holds the state that a checkpoint saves.

    micro-batches, supervised tokens of the step, learning rate ──train_step──▶ loss, gradient norm

Invariant: the gradient is that of the step's mean over supervised tokens, for every split of the step into ranks,
micro-batches and accumulation.
"""
