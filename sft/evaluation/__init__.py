"""What was learned: held-out loss by task, answers to read, and the report of the run.

Tasks that were held out whole are told apart: what the model does on them is generalisation.
"""
