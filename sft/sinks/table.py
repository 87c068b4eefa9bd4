"""All sinks, by their names in the section `logging`, and which of them a run wants.

A package is imported when its sink is loaded, in the sink's own process: each takes a second or more.
"""

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from sft.config_logging import LoggingConfig
from sft.errors import UserError
from sft.sinks.sink import Sink

_DATABASE = re.compile(r"(sqlite|mysql|postgresql|mssql)\b")


def _tensorboard() -> type[Sink]:
    from sft.sinks.tensorboard_sink import TensorBoardSink  # noqa: PLC0415  (see above)

    return TensorBoardSink


def _wandb() -> type[Sink]:
    from sft.sinks.wandb_sink import WandbSink  # noqa: PLC0415  (see above)

    return WandbSink


def _mlflow() -> type[Sink]:
    from sft.sinks.mlflow_sink import MlflowSink  # noqa: PLC0415  (see above)

    return MlflowSink


class SinkKind(NamedTuple):
    """A sink before it is loaded. `package` is what it imports; the extra with the sink's name installs it."""

    title: str
    package: str
    load: Callable[[], type[Sink]]


SINKS = {
    "tensorboard": SinkKind("TensorBoard", "tensorboard", _tensorboard),
    "wandb": SinkKind("Weights & Biases", "wandb", _wandb),
    "mlflow": SinkKind("MLflow", "mlflow", _mlflow),
}


def wanted_sinks(logging: LoggingConfig) -> list[str]:
    """The names of the sinks that the config asks for."""
    return [name for name in SINKS if getattr(logging, name)]


def check_sinks(logging: LoggingConfig) -> None:
    """Check that all wanted sinks can be loaded on this machine and have a place to write to; nothing is loaded.

    Raises:
        UserError: names everything that is missing.
    """
    lines = []
    for name in wanted_sinks(logging):
        package = SINKS[name].package
        if find_spec(package) is None:
            install = f"`pip install 'sft[{name}]'`"
            lines.append(
                f"logging.{name}: the package {package} is not installed here, but the process that starts the "
                f"training needs it to write to {SINKS[name].title}. Install it with {install}, or remove the field."
            )
    if logging.mlflow:
        uri = logging.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            lines.append(
                "logging.mlflow.tracking_uri: nothing is given, and MLFLOW_TRACKING_URI is not set. Give the URL of a "
                "tracking server, or a folder such as `file:///shared/mlruns`."
            )
        elif _DATABASE.match(uri) and find_spec("mlflow") and find_spec("sqlalchemy") is None:
            lines.append(
                "logging.mlflow.tracking_uri: mlflow-skinny, which is installed here, writes to a server or a folder, "
                "but this is a database. Install all of MLflow with `pip install mlflow`."
            )
    if lines:
        raise UserError("\n".join(lines))
