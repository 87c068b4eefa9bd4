"""Ray Train's trainer, as we start it: fewer processes, and all that makes a group of workers."""

from collections.abc import Iterator

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from launcher.cluster.ray_trainer import RayTrainer

NAME = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


@pytest.fixture
def variables() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv(NAME, "")  # so that what the trainer sets is taken back
        variables.delenv(NAME)
        yield variables


def callbacks(kind: type[DataParallelTrainer]) -> set[str]:
    trainer = kind(print, scaling_config=ScalingConfig(num_workers=1))
    return {type(callback).__name__ for callback in trainer._create_default_callbacks()}


def test_only_what_starts_processes_for_nothing_is_left_out(variables: pytest.MonkeyPatch) -> None:
    assert callbacks(DataParallelTrainer) - callbacks(RayTrainer) == {
        "DatasetsCallback",
        "PlacementGroupCleanerCallback",
    }
    assert "BackendSetupCallback" in callbacks(RayTrainer)


def test_a_setting_of_the_users_counts(variables: pytest.MonkeyPatch) -> None:
    callbacks(RayTrainer)
    assert get_env_vars_to_propagate()[NAME] == "0", "that is what Ray passes on to the controller"
    variables.setenv(NAME, "1")
    callbacks(RayTrainer)
    assert get_env_vars_to_propagate()[NAME] == "1"
