"""The sections of the config that say who is told of a run: where its metrics go, and its alerts."""

import re
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from sft.config_effects import Affects, AffectsNothing
from sft.config_paths import NamesPath
from sft.config_section import Section


class WandbConfig(Section):
    """A run of Weights & Biases. The login is that of the driver's machine: WANDB_API_KEY, or `wandb login`."""

    project: AffectsNothing[Annotated[str, Field(min_length=1)]]
    """The project there; the run has the name of this one."""
    entity: AffectsNothing[str | None] = None
    """The user or team. Default: W&B's own."""
    tags: AffectsNothing[tuple[str, ...]] = ()
    """Words to find the run by."""


def _folder(tracking_uri: str) -> str | None:
    """The folder that runs are written to, where it is one, and not a server or a database."""
    path = tracking_uri.removeprefix("file://").removeprefix("file:")
    return path if path and "://" not in path and not path.startswith("databricks") else None


class MlflowConfig(Section):
    """A run of MLflow."""

    tracking_uri: Annotated[str | None, Affects("nothing"), NamesPath(is_written=True, as_path=_folder)] = None
    """The URL of a tracking server, or a folder (such as `file:///shared/mlruns`). Default: MLFLOW_TRACKING_URI."""
    experiment: AffectsNothing[str] = "Default"
    """Made where it is not there; the run has the name of this one."""


class LoggingConfig(Section):
    """Where metrics go besides `metrics.jsonl`."""

    tensorboard: AffectsNothing[bool] = True
    """Event files in the run folder."""
    wandb: AffectsNothing[WandbConfig | None] = None
    """Weights & Biases. Default: not."""
    mlflow: AffectsNothing[MlflowConfig | None] = None
    """MLflow. Default: not."""


class AlertsConfig(Section):
    """What happens to the run, posted as JSON: failed, restarted, loss spikes, skipped steps, finished, stopped."""

    url: AffectsNothing[str | None] = None
    """A webhook, such as those of Slack. `$NAME` takes it from that environment variable of the driver, so that it
    stands in no file. Default: nothing is posted."""

    @field_validator("url")
    @classmethod
    def _is_a_webhook(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^/\s]|\$\w+$", url):
            raise PydanticCustomError("webhook", "must begin with https:// or http://, or be $NAME")
        return url
