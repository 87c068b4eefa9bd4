"""Serving parity: whether an exported folder does elsewhere what the trained model does here.

    run's held-out prompts, fixed ones ──cases──▶ Case ─┬─▶ plain_process: a program with transformers alone ─┐
                                                        ├─▶ own_computation: as training computes, packed    ─┤
                                                        └─▶ served: a server of the folder, if there is one  ─┤
    what the run would write ──folder_files──▶ differences of files, which are likely causes                 ─┤
                                                                     comparison ──▶ ParityResult ◀────────────┘

Nothing here decides which folder is compared with which checkpoint (`sft.training.export_check`).
"""
