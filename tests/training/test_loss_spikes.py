"""A loss out of line is flagged; noise and a slow change are not."""

import numpy as np

from sft.training.loss_spikes import SpikeDetector


def flagged(losses: list[float]) -> list[int]:
    detector = SpikeDetector()
    return [i for i, loss in enumerate(losses) if detector.find(loss) is not None]


def test_noise_and_descent_are_in_line() -> None:
    rng = np.random.default_rng(0)
    for noise in (0.001, 0.1, 0.5):
        falling = 1 + 2 * np.exp(-np.arange(2000) / 300)
        assert flagged((falling * np.exp(rng.normal(0, noise / 3, 2000))).tolist()) == []


def test_a_spike_is_flagged_also_after_another() -> None:
    losses = (2 + np.random.default_rng(1).normal(0, 0.05, 200)).tolist()
    for i in (50, 52, 120):
        losses[i] = 4.0
    assert flagged(losses) == [50, 52, 120]


def test_equal_losses_do_not_make_the_smallest_difference_a_spike() -> None:
    assert flagged([1.0] * 30 + [1.01] + [1.0] * 30) == []
