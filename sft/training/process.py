"""Hides warnings of third parties that are not for the user; each process does this first."""

import logging
import os
import warnings


def quiet_third_parties() -> None:
    """Keep known, harmless messages of libraries off the console and out of the logs."""
    # DeepSpeed 0.19 calls two collectives by names that torch 2.13 renamed.
    warnings.filterwarnings("ignore", message="`torch.distributed.", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
