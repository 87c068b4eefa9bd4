"""Sends what a run measures to where people look at it: TensorBoard, Weights & Biases, MLflow.

    run folder          metrics.jsonl of each stage, evaluations/: the record of truth, written by the first rank
      → run_reader      Point: what was measured at one moment, by names, with a step that counts through all stages
      → follower        to the sink, and then how far it has come, to `sinks/NAME.json`: the next start goes on there
      → sink            the Protocol: tensorboard_sink, wandb_sink, mlflow_sink; `table` names them

A sink follows the files and is no part of the training. Each has a process of its own (`__main__`), which whoever holds
the run folder's lock starts and watches (`processes`): one that fails or hangs is ended, and an event says so.
"""
