"""Fetches the config.json of a model on the Hub, a few kB, into the Hub's own cache on this machine.

    model.path ── on this machine, or not a Hub id ──▶ nothing
               └─ else: a process of its own asks the Hub ──▶ kept in the cache, or why not, in words

The process can be ended when its time is up, whatever it waits for: a name server, a proxy, a lock of the cache. It
also catches what the Hub's library prints.
"""

import json
import subprocess
import sys
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from sft.absolute_paths import may_be_hub_id
from sft.own_process import own_environment, own_module
from sft.url_secrets import remember_secrets, without_secrets

_CONFIG = "config.json"
_TIMEOUT_SECONDS = 20.0
_ANSWER_SECONDS = 5.0
_MAX_BYTES = 1_000_000
"""The limit for a config.json that is fetched. Those on the Hub have a few kB."""


def fetch_config(path: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> str | None:
    """Fetch the config.json of the model at `path`, unless it is on this machine.

    Args:
        path: a folder, a file, or the id of a model on the Hub.
        timeout_seconds: for everything together.

    Returns:
        What was fetched, or why not, in words. None if it was here already, if the environment forbids asking the Hub
        (HF_HUB_OFFLINE), or if `path` cannot be a Hub id.
    """
    if constants.HF_HUB_OFFLINE or not may_be_hub_id(path, "model"):
        return None
    try:
        if isinstance(try_to_load_from_cache(path, _CONFIG), str):
            return None
    except HFValidationError:
        return None
    command = own_module("sft.sizing.hub_config", path)
    # It asks nothing else of the Hub, and sends no telemetry.
    alone = own_environment(HF_HUB_DISABLE_TELEMETRY="1")
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False, env=alone)
        answer = json.loads(run.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        answer = {"why_not": f"it did not come within {timeout_seconds:g} seconds"}
    except (ValueError, IndexError):
        answer = {"why_not": f"its library ended with code {run.returncode}"}
    hub = without_secrets(constants.ENDPOINT)
    if "why_not" in answer:
        return f"model: the config.json of {path} was not fetched from {hub}: {answer['why_not']}"
    return f"model: the config.json of {path} ({answer['num_bytes']:,} bytes) was fetched from {hub} and is kept"


def _fetch(path: str) -> dict[str, str | int]:
    """Ask the Hub, once."""
    try:
        size = get_hf_file_metadata(hf_hub_url(path, _CONFIG), timeout=_ANSWER_SECONDS).size or 0
        if size > _MAX_BYTES:
            return {"why_not": f"it has {size:,} bytes, but a model's config has at most {_MAX_BYTES:,}"}
        file = Path(hf_hub_download(path, _CONFIG, etag_timeout=_ANSWER_SECONDS))
        return {"num_bytes": file.stat().st_size}
    except GatedRepoError:
        return {"why_not": "the model is gated: accept its licence there, and log in (`hf auth login`, or HF_TOKEN)"}
    except RepositoryNotFoundError:
        return {"why_not": "there is no such model, or only for those who are logged in (`hf auth login`, or HF_TOKEN)"}
    except EntryNotFoundError:
        return {"why_not": "the model has none"}
    except HfHubHTTPError as error:
        return {"why_not": f"it answers with status {error.response.status_code}"}
    except Exception as error:
        # Each layer below has its own errors for a missing network.
        text = (str(error).splitlines() or [""])[0]
        return {"why_not": without_secrets(f"it cannot be reached ({type(error).__name__}: {text})")}


if __name__ == "__main__":
    remember_secrets(constants.ENDPOINT)
    sys.stdout.write(json.dumps(_fetch(sys.argv[1])) + "\n")
