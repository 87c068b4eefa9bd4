"""A run in MLflow, on a tracking server or in a folder, through its client.

MLflow cannot replace values, so no step is sent twice. Names and values are adapted to what it accepts.
"""

import hashlib
import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sft.config_logging import LoggingConfig
from sft.sinks.sink import End, Point, Purpose
from sft.url_secrets import without_secrets

# MLflow reads these at import. It refuses folders, which are in maintenance mode, unless this is set.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The follower retries a server that does not answer, so that this process shows meanwhile that it is alive.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param  # noqa: E402

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

# What MLflow 3 accepts in one request; it allows names of 250 characters.
_MOST_METRICS, _MOST_PARAMS = 1000, 100
_MOST_VALUE_CHARS, _MOST_NAME_CHARS = 6000, 200


class MlflowSink:
    """One run in MLflow for a run here, across all its starts."""

    replaces = False

    def __init__(self, purpose: Purpose) -> None:
        """See `Sink`."""
        assert purpose.logging.mlflow is not None
        section = purpose.logging.mlflow
        self._client = MlflowClient(section.tracking_uri)
        self.id = purpose.id
        if self.id:
            self._client.update_run(self.id, status="RUNNING")
        else:
            found = self._client.get_experiment_by_name(section.experiment)
            experiment = found.experiment_id if found else self._client.create_experiment(section.experiment)
            self.id = self._client.create_run(experiment, run_name=purpose.name).info.run_id
            params = [Param(_fit(name), value[:_MOST_VALUE_CHARS]) for name, value in _flat(purpose.config)]
            for i in range(0, len(params), _MOST_PARAMS):
                self._client.log_batch(self.id, params=params[i : i + _MOST_PARAMS])
        self.where = f"{without_secrets(self._client.tracking_uri)}, run {self.id}"

    @staticmethod
    def destination(logging: LoggingConfig) -> str:
        """See `Sink`."""
        assert logging.mlflow is not None
        return f"{without_secrets(logging.mlflow.tracking_uri or '')} {logging.mlflow.experiment}"

    def add(self, points: Sequence[Point]) -> None:
        """See `Sink`."""
        metrics = [
            Metric(_fit(name), value, round(1000 * point.time), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for i in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self.id, metrics=metrics[i : i + _MOST_METRICS])

    def close(self, end: End) -> None:
        """See `Sink`."""
        self._client.set_terminated(self.id, _STATUS[end], round(1000 * time.time()))


def _flat(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value of the config with its path; an item of a list is named by its name or its number."""
    if isinstance(config, Mapping):
        for key, item in config.items():
            yield from _flat(item, f"{path}.{key}".lstrip("."))
    elif isinstance(config, list) and any(isinstance(item, Mapping) for item in config):
        for i, item in enumerate(config):
            yield from _flat(item, f"{path}.{item.get('name', i)}")
    else:
        yield path, str(config)


def _fit(name: str) -> str:
    """A name that MLflow accepts, different for each name: a task may have any name.

    `eval/code & maths/loss` → `eval/code _ maths/loss-5f1e0c2a`
    """
    fit = re.sub(r"[^\w\-. :/]", "_", name)[:_MOST_NAME_CHARS]
    if posixpath.normpath(fit) != fit or fit.startswith(("/", "..")):
        fit = re.sub("[/.]", "_", fit)
    return name if fit == name else f"{fit}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
