"""Hands a job to machines elsewhere: to Slurm, to a Ray cluster, or to Kubernetes.

job ──portable_job──▶ config and command ──▶ slurm: a batch script
                                         ──▶ ray_jobs: a folder that Ray's Jobs API takes
                                         ──▶ kuberay: a manifest
"""
