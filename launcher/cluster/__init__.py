"""Everything that speaks to Ray while a job is prepared or trained: the connection, the workers, the watches.

    driver ──request──▶ trainer (a process of its own): connection ──▶ worker, on each node: sft.training
                                                  ray_watch, node_watch, capacity_watch: what is gone, what will come

Nothing above this package knows Ray, except `launcher.preflight.probes` and the client of Ray's Jobs API in
`launcher.submission`.
"""
