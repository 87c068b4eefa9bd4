"""Checks every node before a worker is placed, and reports all problems at once.

    driver (checks) ──asks──▶ a probe on each node (probes → node_probe): node_facts, gpus, shared_folders, network
           ◀──answers──
    comparison, gpu_comparison, disk_need: facts of all nodes → findings ──▶ table

A probe holds neither CPUs nor GPUs of the cluster, so busy clusters are checked too. Every wait is bounded; a node that
does not answer is a finding. Only `probes` knows Ray.
"""
