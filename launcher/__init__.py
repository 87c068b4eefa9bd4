"""Places, restarts and watches the training job on a Ray cluster or on one machine.

    CONFIG ──JobConfig──▶ prepare ──▶ Ray Train's workers, each running sft.training ──run folder──▶ progress, report

`sft` trains and knows nothing of Ray. What passes between the two: docs/ARCHITECTURE.md.
"""
