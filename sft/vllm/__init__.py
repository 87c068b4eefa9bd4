"""vLLM, in an environment of its own: a server for as long as a model is asked.

    VllmCommand, ServedFolder ──serving──▶ Endpoint
                                  └─ leash: a process between, which ends vLLM with all that it started

vLLM needs other versions of torch than a training, so nothing of it is imported: it is a command.
"""
