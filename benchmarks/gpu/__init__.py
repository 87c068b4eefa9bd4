"""Everything that has to be seen on a GPU, in one call of less than seven minutes: right, as large as planned, fast.

On a machine with a GPU, torch 2.11 or later and transformers, without a network (`benchmarks/gpu_bundle.sh` makes the
archive that travels there):

    tar -xzf BUNDLE.tar.gz && cd BUNDLE && PYTHONPATH=$PWD python -m benchmarks.gpu --out gpu.json

On any machine, as a check that it runs, with models of two layers:

    OMP_NUM_THREADS=1 python -m benchmarks.gpu --device cpu --small --out cpu.json

The worker's own variables (`sft.training.worker_variables`) are set unless they are there. Each part runs in a process
of its own, so that one that fails, hangs or runs out of memory ends no other; the process of the next one starts
early and imports meanwhile. A part that sees its time run out leaves the rest of its cases out, and says so.

    run ──starts──▶ process of a part ──rows──▶ run: prints each, writes the JSON ──▶ table, exit code

`part` says what a part is, `parts` lists them, `run` runs them; `packs`, `models`, `training`, `timing` and
`switches` are what several parts use. The exit code is the number of goals that were missed, and of parts that failed.
"""
