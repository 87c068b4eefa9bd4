"""Sends the metrics of a run to where people look at them: TensorBoard, Weights & Biases, MLflow.

    run folder          metrics.jsonl of each stage, evaluations/: the record of truth, written by the first rank
      → run_reader      Point: what was measured at one moment, by names, with a step that counts through all stages
      → follower        sends to the sink, then records how much in `sinks/NAME.json`, where the next start goes on
      → sink            the Protocol: tensorboard_sink, wandb_sink, mlflow_sink; `table` names them

A sink follows the files and is not part of the training. Each has its own process (`__main__`). The holder of the run
folder's lock starts and watches it (`processes`): a sink that fails or hangs is ended, and an event says so.
"""
