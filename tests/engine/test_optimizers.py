"""Every optimizer of the table works element by element, keeps what the table says, and goes on from what was saved."""

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from sft.config_optimizer import OptimizerConfig
from sft.engine import lion
from sft.engine.optimizers import BUILDERS, decay_groups, new_state
from sft.optimizers import MASTER, OPTIMIZERS, OptimizerName, state_bytes, state_kinds

SHAPES = ((5, 7), (11,), ())
NUM_STEPS = 4
EVERY_ONE = pytest.mark.parametrize("name", OPTIMIZERS)


def config_of(name: str) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"name": name, "lr": 0.1, "weight_decay": 0.3})


class Parts(nn.Module):
    """Parameters that are updated by the gradients of a seed; `num_parts` cuts each into flat parts, as ZeRO-3 does."""

    def __init__(self, num_parts: int = 0) -> None:
        super().__init__()
        self.num_parts = num_parts
        whole = [self._of(values) for values in self.draws(0)]
        self.parts = nn.ParameterList([nn.Parameter(part.clone()) for parts in whole for part in parts])
        # Decay looks at the shape of the whole.
        self.shapes = {id(p): s for p, s in zip(self.parts, (s for s in SHAPES for _ in whole[0]), strict=True)}

    def draws(self, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(shape, generator=generator) for shape in SHAPES)

    def _of(self, values: Tensor) -> list[Tensor]:
        return [values] if not self.num_parts else list(values.flatten().tensor_split(self.num_parts))

    def optimizer(self, name: OptimizerName) -> torch.optim.Optimizer:
        config = config_of(name)
        groups = decay_groups(self, config.weight_decay, lambda p: self.shapes[id(p)])
        return BUILDERS[name].plain(groups, config)

    def update(self, optimizer: torch.optim.Optimizer, *steps: int) -> None:
        for step in steps:
            gradients = [part for values in self.draws(1 + step) for part in self._of(values)]
            for parameter, gradient in zip(self.parts, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    def flat(self) -> Tensor:
        return torch.cat([part.detach().flatten() for part in self.parts])


def test_the_tables_and_the_configs_names_are_the_same() -> None:
    assert list(OPTIMIZERS) == list(BUILDERS) == list(get_args(OptimizerName))


def test_what_runs_have_saved_of_adamw_is_still_called_so() -> None:
    assert state_kinds("adamw") == ("master", "exp_avg", "exp_avg_sq")


@EVERY_ONE
def test_flat_parts_are_updated_as_the_whole_is_to_the_bit(name: OptimizerName) -> None:
    found = []
    for num_parts in (0, 1, 3):
        model = Parts(num_parts)
        model.update(model.optimizer(name), *range(NUM_STEPS))
        found.append(model.flat())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], Parts().flat())


@EVERY_ONE
def test_it_keeps_what_is_saved_of_it_and_no_more(name: OptimizerName) -> None:
    model = Parts()
    optimizer = model.optimizer(name)
    model.update(optimizer, 0)
    for parameter in model.parts:
        kept = {kind: value for kind, value in optimizer.state[parameter].items() if value.shape == parameter.shape}
        kept.pop("step", None)  # a number, as a parameter may be
        assert (MASTER, *kept) == state_kinds(name)
        assert 4 * (1 + len(kept)) == state_bytes(name)


@EVERY_ONE
def test_filled_in_again_it_goes_on_to_the_bit(name: OptimizerName) -> None:
    straight = Parts()
    optimizer = straight.optimizer(name)
    straight.update(optimizer, 0, 1)
    resumed = Parts()
    with torch.no_grad():
        for parameter, saved in zip(resumed.parts, straight.parts, strict=True):
            parameter.copy_(saved)
    again = resumed.optimizer(name)
    for parameter, saved in zip(resumed.parts, straight.parts, strict=True):
        again.state[parameter] = new_state(name, again, parameter.detach(), 2)
        for kind in OPTIMIZERS[name].means:
            again.state[parameter][kind].copy_(optimizer.state[saved][kind])
    straight.update(optimizer, 2, 3)
    resumed.update(again, 2, 3)
    assert torch.equal(resumed.flat(), straight.flat())


def test_lion_is_what_its_paper_says_whatever_is_updated_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithm 2, written as it stands there, in float64."""
    monkeypatch.setattr(lion, "_PIECE_ELEMENTS", 3)
    config, model = config_of("lion"), Parts()
    assert config.betas == (0.9, 0.99)
    optimizer, (beta1, beta2) = model.optimizer("lion"), config.betas
    for weight, shape, number in zip(model.parts, SHAPES, range(len(SHAPES)), strict=True):
        theta, m = weight.detach().double().clone(), torch.zeros(shape, dtype=torch.float64)
        decay = config.weight_decay if len(shape) > 1 else 0.0
        for step in range(NUM_STEPS):
            g = list(model.draws(1 + step))[number].double()
            c = beta1 * m + (1 - beta1) * g
            theta = theta - config.lr * (c.sign() + decay * theta)
            m = beta2 * m + (1 - beta2) * g
        weight.expected = theta  # type: ignore[attr-defined]
    model.update(optimizer, *range(NUM_STEPS))
    for weight in model.parts:
        torch.testing.assert_close(weight.detach().double(), weight.expected, rtol=1e-5, atol=1e-6)


def test_lion_leaves_a_weight_that_had_no_gradient_where_it_was() -> None:
    row = nn.Parameter(torch.tensor([1.0, -1.0, 0.5]))
    optimizer = lion.Lion([row], 0.1, (0.9, 0.99))
    row.grad = torch.tensor([0.0, -0.0, 2.0])
    for _ in range(2):
        optimizer.step()
    assert row.tolist() == [1.0, -1.0, pytest.approx(0.3)]
