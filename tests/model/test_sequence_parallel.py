"""Ranks that share a row attend as one does with the whole: any heads, widths, sinks and windows; gradients, too."""

from math import gcd
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.attention import packed_attention
from sft.model.attention_heads import attention_heads
from sft.model.layout import choose_layout, try_layout
from sft.model.sequence_parallel import SequenceGroup, SplitRow
from sft.model.sharing import check_sharing, heads_of, refuse_heads, try_split
from sft.model.split_heads import key_repeats, largest_divisible, why_not_divisible
from sft.model.split_probe import run_parts
from sft.model.tiny_model import CannotTryError
from tests.model.test_layout import config_of

heads = st.sampled_from([(8, 8), (8, 4), (8, 2), (8, 1), (12, 6), (12, 4), (24, 6)])


@settings(max_examples=25, deadline=None)
@given(heads, st.sampled_from([2, 4]), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 99))
def test_attention_of_parts_is_that_of_the_row(
    of_heads: tuple[int, int], num_parts: int, share: int, has_sinks: bool, has_window: bool, seed: int
) -> None:
    num_heads, num_key_heads = of_heads
    torch.manual_seed(seed)
    length, width, value_width = share * num_parts, 8, 4
    cut = int(torch.randint(1, length, ()))
    bounds = torch.tensor([0, cut, length], dtype=torch.int32)
    made = [
        torch.randn(1, h, length, w)
        for h, w in ((num_heads, width), (num_key_heads, width), (num_key_heads, value_width))
    ]
    seeds, options = torch.randn(1, length, num_heads, value_width), {"sliding_window": 3 if has_window else None}
    sinks = torch.randn(num_heads) if has_sinks else None

    def attend(parts: list[Tensor], own_sinks: Tensor | None, **boundaries: Any) -> Tensor:
        output, _ = packed_attention(nn.Identity(), *parts, None, s_aux=own_sinks, **options, **boundaries)
        return output

    whole = [x.clone().requires_grad_() for x in made]
    whole_sinks = None if sinks is None else sinks.clone().requires_grad_()
    expected = attend(whole, whole_sinks, cu_seq_lens_q=bounds, max_length_q=length)
    expected.backward(seeds)

    def run(group: SequenceGroup) -> tuple[Tensor, list[Tensor], Tensor | None]:
        own = slice(group.place * share, (group.place + 1) * share)
        parts = [x[:, :, own].clone().requires_grad_() for x in made]
        own_sinks = None if sinks is None else sinks.clone().requires_grad_()
        output = attend(parts, own_sinks, split_row=SplitRow(group, bounds, length))
        output.backward(seeds[:, own])
        return output.detach(), [x.grad for x in parts], None if own_sinks is None else own_sinks.grad

    found = run_parts(num_parts, run)
    torch.testing.assert_close(torch.cat([output for output, *_ in found], 1), expected, rtol=1e-5, atol=1e-6)
    for i, x in enumerate(whole):
        joined = torch.cat([gradients[i] for _, gradients, _ in found], 2)
        torch.testing.assert_close(joined, x.grad, rtol=1e-4, atol=1e-6)
    if whole_sinks is not None:
        summed = torch.stack([gradient for *_, gradient in found]).sum(0)
        torch.testing.assert_close(summed, whole_sinks.grad, rtol=1e-4, atol=1e-6)


grouped = st.sampled_from([(8, 8, 2), (8, 2, 4), (8, 1, 4), (12, 6, 4), (12, 4, 6), (6, 3, 3), (4, 1, 4), (24, 6, 4)])


@settings(max_examples=25, deadline=None)
@given(grouped, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_an_exchange_gives_each_rank_its_heads_of_all_tokens_and_its_inverse_gives_them_back(
    of_heads: tuple[int, int, int], share: int, width: int, is_by_token: bool
) -> None:
    num_heads, num_key_heads, num_parts = of_heads
    repeats = key_repeats(num_heads, num_key_heads, num_parts)
    assert repeats is not None

    def made(count: int) -> Tensor:
        """Numbers that are all different, in either order in memory."""
        shape = (share * num_parts, count) if is_by_token else (count, share * num_parts)
        values = torch.arange(count * share * num_parts * width, dtype=torch.float64).reshape(1, *shape, width)
        return values.transpose(1, 2) if is_by_token else values

    query, key = made(num_heads), made(num_key_heads)

    def run(group: SequenceGroup) -> tuple[list[Tensor], list[Tensor], Tensor]:
        own = [x[:, :, share * group.place : share * (group.place + 1)].requires_grad_() for x in (query, key, key)]
        heads = group.own_heads(*own)
        back = [group.own_tokens(x.transpose(1, 2)).transpose(1, 2) for x in heads]
        back[1].sum().backward()
        assert own[1].grad is not None
        return list(heads), back, own[1].grad

    found = run_parts(num_parts, run)
    # A head of keys so many times behind itself, and consecutive heads on each rank.
    expected = query, *[key.repeat_interleave(repeats, dim=1)] * 2
    for i, whole in enumerate(expected):
        assert torch.equal(torch.cat([heads[i] for heads, _, _ in found], 1), whole)
        assert torch.equal(torch.cat([back[i] for _, back, _ in found], 2), whole)
    assert all(torch.equal(gradient, torch.full_like(gradient, repeats)) for *_, gradient in found)


class Copies(TorchDispatchMode):
    """Counts what copies a tensor."""

    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += any(name in str(func) for name in ("clone", "copy", "cat", "stack", "index", "repeat"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("num_heads", "num_key_heads", "num_parts"), [(8, 8, 2), (8, 2, 2), (8, 2, 4), (8, 1, 4)])
def test_each_tensor_is_copied_once_to_be_exchanged(num_heads: int, num_key_heads: int, num_parts: int) -> None:
    """Also where heads of keys are sent more than once. What is sent has to lie in one piece: no fewer would do."""

    def projected(count: int) -> Tensor:
        return torch.randn(1, 6, count * 16).unflatten(2, (count, 16)).transpose(1, 2).requires_grad_()

    sent: list[Tensor] = []

    def keep(values: Tensor) -> Tensor:
        assert values.is_contiguous()
        sent.append(values)
        return values

    group, given = SequenceGroup(0, num_parts, keep), [projected(n) for n in (num_heads, *[num_key_heads] * 2)]
    with Copies() as copies:
        heads = group.own_heads(*given)
    assert (copies.num, len(sent)) == (3, 3)
    # Token by token, as FlashAttention reads them and writes its output.
    assert all(x.squeeze(0).transpose(0, 1).is_contiguous() for x in heads)
    output = heads[0].detach().transpose(1, 2).requires_grad_()
    with Copies() as copies:
        tokens = group.own_tokens(output)
    assert (copies.num, tokens.is_contiguous()) == (1, True)
    with Copies() as copies:
        torch.autograd.grad(tokens, output, torch.randn(tokens.shape))
    assert copies.num == 1, "to be sent"
    with Copies() as copies:
        torch.autograd.grad(heads[0], given[0], torch.randn(1, 6 * num_parts, heads[0].shape[1], 16).transpose(1, 2))
    assert copies.num == 1, "to have all heads of a token side by side"


def test_an_error_of_one_part_ends_the_others() -> None:
    def run(group: SequenceGroup) -> None:
        if group.place == 1:
            raise ValueError("of this part")
        group.all_to_all(torch.zeros(2, 1))

    with pytest.raises(ValueError, match="of this part"):
        run_parts(2, run)


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 16))
def test_each_rank_has_whole_heads_of_keys_and_those_of_its_queries(groups: int, num_key_heads: int, n: int) -> None:
    num_heads = groups * num_key_heads
    repeats = key_repeats(num_heads, num_key_heads, n)
    if repeats is None:
        assert any((num_heads % n, groups % (n // gcd(num_key_heads, n))))
        return
    kept = [key for key in range(num_key_heads) for _ in range(repeats)]
    assert num_heads % n == len(kept) % n == 0
    of_query = [query // groups for query in range(num_heads)]
    for rank in range(n):
        queries = of_query[rank * num_heads // n : (rank + 1) * num_heads // n]
        keys = kept[rank * len(kept) // n : (rank + 1) * len(kept) // n]
        each = len(queries) // len(keys)
        assert [keys[i // each] for i in range(len(queries))] == queries
    assert repeats == 1 or num_key_heads % n, "keys are repeated only where they have to be"


def test_heads_that_cannot_be_divided_are_refused_with_what_can(tmp_path: Any) -> None:
    assert largest_divisible([(12, 12), (12, 4)], 12) == [1, 2, 3, 4, 6, 12]
    assert why_not_divisible([(8, 2)], 8) is None
    model = config_of(tmp_path, "llama", num_attention_heads=12, num_key_value_heads=4, hidden_size=96)
    assert choose_layout(model, "auto", 512, 2) == ("packed", None)
    with pytest.raises(
        UserError,
        match=r"train\.sequence_parallel: 8: 12 heads of attention, 4 of keys, cannot be divided among 8 workers "
        r"equally\. For this model work: 1, 2, 3, 4, 6, 12\.",
    ):
        choose_layout(model, "auto", 512, 8)


def test_heads_are_refused_even_where_nothing_can_be_tried(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> None:
        raise ValueError("no small form")

    monkeypatch.setattr("sft.model.sharing.tiny_config", cannot)
    model = config_of(tmp_path, "llama", num_attention_heads=12, num_key_value_heads=4, hidden_size=96)
    with pytest.raises(UserError, match="work: 1, 2, 3, 4, 6, 12"):
        check_sharing(model, 8)
    with pytest.raises(CannotTryError, match="no small form"):
        check_sharing(model, 4)
    check_sharing(model, 1)


def test_heads_are_seen_in_each_layer_whatever_the_config_calls_them() -> None:
    def seen(family: str, **given: Any) -> list[tuple[int, int]]:
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        with torch.device("meta"):
            return attention_heads(AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**given)))

    assert seen("gpt2", n_layer=2, n_head=12) == [(12, 12)]
    assert seen("falcon_h1", num_hidden_layers=1) == [(32, 8)]
    with pytest.raises(UserError, match=r"work: 1, 2, 3, 4, 6, 12"):
        refuse_heads(heads_of(CONFIG_MAPPING["gpt2"](n_layer=2)), 5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "deepseek_v3", "mixtral", "gpt2"])
def test_what_mixes_tokens_in_attention_alone_can_be_shared(family: str) -> None:
    assert try_split(CONFIG_MAPPING[family]()) is None


@pytest.mark.parametrize("family", ["lfm2", pytest.param("mamba2", marks=pytest.mark.long)])
def test_what_mixes_tokens_elsewhere_is_refused(family: str, tmp_path: Any) -> None:
    given = {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2} if family == "lfm2" else {}
    assert "nats a token" in str(try_split(CONFIG_MAPPING[family](**given)))
    model: ModelConfig = config_of(tmp_path, family, **given)
    with pytest.raises(UserError, match=r"train\.sequence_parallel: 2: workers cannot share the rows of .*Set it to 1"):
        choose_layout(model, "auto", 512, 2)


def test_a_layer_that_looks_at_its_neighbour_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the examples of a row apart: only the cut shows it."""
    from transformers.models.llama import modeling_llama  # noqa: PLC0415

    forward = modeling_llama.LlamaMLP.forward
    # Where the probe's examples begin: in the row; in its two parts, the second of which begins within an example.
    begins = {45: [0, 21, 30, 32], 23: [0, 21, 30 - 23, 32 - 23]}

    def look_back(self: nn.Module, x: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        before[:, begins.get(x.shape[1], [0])] = 0
        return forward(self, x + 0.5 * before)

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", look_back)
    config = CONFIG_MAPPING["llama"]()
    assert try_layout(config, "packed") is None
    assert "nats a token off that of the model's own forward pass" in str(try_split(config))
