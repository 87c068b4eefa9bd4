"""What a run will need, before anyone pays for it: memory, time, traffic, disk. Nothing here imports torch or touches a
GPU.

    config.json ──model_config, families──▶ ModelShape ──activations──▶ bytes a token
                                                 │
    Setting (config, workers) ──memory──▶ the moments of a step ──▶ the largest of them: what a GPU must hold
                              ──host_memory, traffic, flops, storage──▶ Forecast ──advice──▶ what to change
    run folder ──planned_stages──▶ packs, steps and tokens of each stage, if `sft prepare` has made them

Every number is a count of bytes or floating-point operations from shapes. What cannot be counted (the CUDA context,
the libraries of a process) is an allowance, is called one, and is defined in one place.
"""
