"""What was learned: held-out loss by task, answers to read, and the report of the run.

Tasks that no stage trains on are shown separately: they measure generalisation to unseen tasks.
"""
