"""The tasks of lm-evaluation-harness (package `lm_eval`), asked of whole models.

    --harness TASKS ─▶ HarnessTasks ──a process that imports lm_eval──▶ a file for each model and task ─▶ ComparedRow

The harness runs in a process of its own: its imports take seconds, and what it raises or takes along with its memory
ends that process alone. What it measured once is read from the file.
"""
