"""`train.deterministic`: what is set, that it changes nothing on CPUs, and that what cannot be is refused in words."""

from typing import Any

import pytest
from transformers import MixtralConfig, MixtralForCausalLM

from sft.errors import UserError
from sft.training.determinism import choose_experts, refused_in_words
from sft.training.worker_variables import missing_variables


def test_what_is_missing_is_set_and_the_user_counts() -> None:
    assert missing_variables({}, False) == {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "TORCH_FR_BUFFER_SIZE": "2000",
    }
    assert missing_variables({}, True).keys() - missing_variables({}, False) == {"CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO"}
    of_user = {
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "NCCL_ALGO": "Ring",
    }
    assert missing_variables(of_user, True) == {}


@pytest.mark.parametrize("value", ["1", "true"])
def test_segments_do_not_grow_where_nccl_registers_them(value: str) -> None:
    registers = {"TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK": value}
    assert "PYTORCH_ALLOC_CONF" not in missing_variables(registers, False)
    assert "PYTORCH_ALLOC_CONF" in missing_variables(dict.fromkeys(registers, "0"), False)


def test_an_operation_without_a_deterministic_implementation_is_named() -> None:
    with pytest.raises(UserError, match=r"train\.deterministic: .*\(_histc_cuda\)"), refused_in_words():
        raise RuntimeError("_histc_cuda does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="^another$"), refused_in_words():
        raise RuntimeError("another")


def test_experts_are_computed_one_after_another() -> None:
    sizes: dict[str, Any] = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 16)
    heads = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1)
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads, num_local_experts=2))
    assert model.config._experts_implementation != "eager"
    choose_experts(model)
    assert model.model.layers[0].mlp.experts.config._experts_implementation == "eager"
