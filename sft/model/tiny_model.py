"""A tiny random model of the same class as a given one: it shows in a second, on any machine, what the class does.

The config is made small by the names of its fields: widths, heads, experts, vocabulary, and windows and chunks of
attention. These get shorter than the segments of the probe, so that it sees their effect. Layers are cut off after the
first of each kind. The kinds of layers, positions, norms and scales stay as they are.
"""

import copy
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.architecture import UnreadableConfigError, auto_class, read_config

VOCAB_SIZE = 96
MAX_LAYERS = 16
_MAX_PARAMETERS = 30_000_000
_MAX_BUFFER_BYTES = 500_000_000
_WIDTH, _HEADS, _HEAD_DIM = 64, 4, 16
_SPREAD = 0.1

# Field → its largest value. A pattern is matched against the whole name; the first match counts.
_AT_MOST: tuple[tuple[str, int], ...] = (
    (r"vocab_size|vocab_size_per_layer_input|.*_vocab_size", VOCAB_SIZE),
    (
        r"hidden_size|d_model|n_embd|dim|embed_dim|((in|out)put_)?embedding_size|embedding_dim|word_embed_proj_dim",
        _WIDTH,
    ),
    (r"attention_hidden_size", 2 * _WIDTH),
    (r"emb_dim|lru_width|decoder_hidden_size|input_hidden_size|conv_dim|block_dim", _WIDTH),
    (r"(num_attention_|num_|n_|decoder_attention_|encoder_attention_|attention_|linear_num_)heads?|n_head", _HEADS),
    (r"(num_)?heads_kv|.*num_key_value_heads|num_kv_heads|multi_query_group_num", 2),
    (r"attention_head_dim", 2 * _HEAD_DIM),
    (r"(global_|swa_|kv_|d_|linear_)?head_(dim|size)|kv_channels|d_kv", _HEAD_DIM),
    (r"qk_(nope|rope)_head_dim|(swa_)?v_head_dim|index_head_dim|(q|kv|o)_lora_rank|d_head", _HEAD_DIM),
    (r"qk_head_dim", 2 * _HEAD_DIM),
    (r"rotary_(dim|ndims)", 8),
    (r"mamba_(d_head|head_?dim)", _HEAD_DIM),
    (r"mamba_d_ssm", 2 * _WIDTH),
    (r"num_kv_shared_layers", 0),
    (r"(moe_|expert_|shared_expert_)?intermediate_size(_mlp)?|.*_(intermediate_size|ffn_dim)|ffn_dim|n_inner", 48),
    (r"d_ff|dim_feedforward|ffn_hidden(_size)?|feed_forward_size|mlp_hidden_size", 48),
    (r"hidden_size_per_layer_input|laurel_rank|altup_.*rank", 8),
    (r"(n|num)_(local_|routed_|block_)?experts|moe_num_experts|num_local_experts|zero_expert_num", 4),
    (r"(num_)?experts_per_tok|num_experts_per_token|moe_k|(moe_)?top_?k(_experts)?|moe_topk|num_selects", 2),
    (r"n_group|topk_group|num_expert_group", 1),
    (r"index_topk", 4),
    (r"index_n_heads", 32),
    (r"linear_num_key_heads|linear_num_value_heads|mamba_n_groups|n_groups|mamba_ngroups", 2),
    (r"linear_(key|value)_head_dim", _HEAD_DIM),
    (r"(mamba_|ssm_)?(d_state|state_size|state_dim)|ssm_state_size", 16),
    (r"(mamba_|linear_|ssm_)?(chunk|block)_size", 8),
    (r"(mamba_)?(dt_rank|time_step_rank)", 4),
    (r"sliding_window(_size)?|attention_window_size|attention_chunk_size|window_size|local_attention", 8),
    (r"image_size", 32),
    (r"patch_size", 16),
)
_KV_HEADS = (("num_attention_heads", "num_key_value_heads"), ("swa_num_attention_heads", "swa_num_key_value_heads"))
_STATE_HEADS = (
    ("num_heads", "head_dim", "expand"),
    ("mamba_n_heads", "mamba_d_head", "mamba_expand"),
    ("n_mamba_heads", "mamba_headdim", "mamba_expand"),
    ("mamba_num_heads", "mamba_head_dim", "expand"),
)
"""State-space layers: the number of heads, the width of a head, and their total as a multiple of the model's width."""
_NUM_LAYERS = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|num_blocks|(encoder|decoder|text|num_decoder|num_encoder)_layers"
)
_PERIOD = re.compile(r".*(period|interval|_step|frequency|every_n_layers|_freq|sliding_window_pattern)")
_SPECIAL_IDS = re.compile(r".*_token_(id|ids|index)")


class CannotTryError(Exception):
    """No tiny model of the class could be made or run on its own, so nothing is known about what the class does."""


def reason_of(error: BaseException) -> str:
    """What a class has raised, in a line: its own words, or which error they are."""
    lines = str(error).strip().removeprefix("model: ").split("\n")
    # Some messages end their first line in a colon and give the reason in the second.
    text = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
    return text if isinstance(error, UserError) else f"its code raises {type(error).__name__}: {text}"


def config_to_try(model: ModelConfig) -> Any:
    """The config that a tiny model is made from.

    Raises:
        CannotTryError: it cannot be read, which loading the model reports.
    """
    try:
        return read_config(model, model.path)
    except UnreadableConfigError as error:
        raise CannotTryError(reason_of(error)) from error


def tiny_config(config: Any) -> Any:
    """A small config of the class of `config`; `config` stays as it is.

    Raises:
        Exception: anything that the class raises where the small numbers do not fit together.
    """
    content = _small(copy.deepcopy(config.to_dict()))
    content.pop("quantization_config", None)
    return type(config)(**{k: v for k, v in content.items() if k not in ("model_type", "transformers_version")})


def tiny_model(config: Any, attention: str | None, **options: Any) -> Any:
    """A model of a tiny config in float32, with the same random weights each time.

    The weights are larger than training's initial ones, so that the nll of a token shows which tokens it sees.

    Args:
        config: from `tiny_config`.
        attention: the implementation; None: transformers' own choice.
        options: for `from_config`, such as `trust_remote_code`.

    Raises:
        ValueError: the config's fields are not known well enough to make it small.
        Exception: anything that the class raises.
    """

    def build() -> Any:
        # The model gets its own copy: it writes into its config.
        own = copy.deepcopy(config)
        return auto_class(own).from_config(own, attn_implementation=attention, dtype=torch.float32, **options)

    with torch.device("meta"):
        shapes = build()
    size = sum(parameter.numel() for parameter in shapes.parameters())
    if size > _MAX_PARAMETERS:
        raise ValueError(f"its small form would have {size:,} parameters")
    num_bytes = sum(buffer.nbytes for buffer in shapes.buffers())
    if num_bytes > _MAX_BUFFER_BYTES:
        raise ValueError(f"its small form would have {num_bytes:,} bytes of tables")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    fan_in = parameter[0].numel()
                    parameter.copy_(torch.randn_like(parameter) * fan_in**-0.5)
                elif parameter.dim() == 1:
                    # Norms, biases and gates begin as ones and zeros, which do nothing.
                    parameter.add_(torch.randn_like(parameter) * _SPREAD)
    return model.float().eval()


def _small(content: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in content.items() if isinstance(name, str)}
    layers = _num_layers(content)
    small = {name: _small_section(value, layers) for name, value in content.items()}
    for name, value in content.items():
        if _NUM_LAYERS.fullmatch(name) and isinstance(value, int):
            small[name] = min(value, layers[1])
        elif isinstance(value, list) and layers[0] and len(value) == layers[0]:
            small[name] = [min(v, _most(name)) if type(v) is int else v for v in value[: layers[1]]]
        elif isinstance(value, list) and _is_layer_list(name, value):
            small[name] = [index for index in value if index < layers[1]]
        elif name == "hybrid_override_pattern" and isinstance(value, str):
            small[name] = value[: layers[1]]
        elif _SPECIAL_IDS.fullmatch(name):
            small[name] = _special(value)
        elif type(value) is int:
            small[name] = min(value, _most(name))
    for heads, kv_heads in _KV_HEADS:
        if content.get(kv_heads) is not None and content[kv_heads] == content.get(heads):
            small[kv_heads] = small[heads]
    width = small.get("hidden_size")
    for heads, head_dim, expand in _STATE_HEADS:
        if isinstance(width, int) and all(isinstance(small.get(name), int) for name in (heads, head_dim, expand)):
            small[heads] = small[expand] * width // small[head_dim]
    return small


def _most(name: str) -> int:
    return next((most for pattern, most in _AT_MOST if re.fullmatch(pattern, name)), sys.maxsize)


def _small_section(value: Any, layers: tuple[int, int]) -> Any:
    """A section of the config; if it has an entry for each layer, the entries of the kept layers."""
    if not isinstance(value, Mapping):
        return value
    if layers[0] and value and all(str(key).isdigit() for key in value):
        value = {key: entry for key, entry in value.items() if int(key) < layers[1]}
        return {key: _small(entry) if isinstance(entry, Mapping) else entry for key, entry in value.items()}
    return _small(value)


def _num_layers(content: Mapping[str, Any]) -> tuple[int, int]:
    """How many layers there are, and how many are kept."""
    given = [v for k, v in content.items() if _NUM_LAYERS.fullmatch(k) and isinstance(v, int)]
    if not given:
        return 0, 0
    num, needed = max(given), 2
    for name, value in content.items():
        if isinstance(value, list) and len(value) == num and all(isinstance(kind, str) for kind in value):
            needed = max(needed, _two_of_each(value))
        elif isinstance(value, list) and _is_layer_list(name, value) and value:
            needed = max(needed, 1 + min(value))
        elif isinstance(value, int) and _PERIOD.fullmatch(name):
            needed = max(needed, value)
        elif name == "hybrid_override_pattern" and isinstance(value, str):
            needed = max(needed, _two_of_each(list(value)))
        elif name in ("first_k_dense_replace", "num_dense_layers") and isinstance(value, int):
            needed = max(needed, 1 + value)
    return num, min(num, needed, MAX_LAYERS)


def _two_of_each(kinds: list[str]) -> int:
    """The number of layers that has two of each kind, if they come early, or at least one."""
    places = [[i for i, kind in enumerate(kinds) if kind == wanted][:2] for wanted in set(kinds)]
    return 1 + max(max((i for i in place if i < MAX_LAYERS), default=place[0]) for place in places)


def _is_layer_list(name: str, value: list[Any]) -> bool:
    return bool(re.search(r"layer|idx|indices", name)) and all(type(index) is int for index in value)


def _special(value: Any) -> Any:
    """The ids of special tokens below the small vocabulary."""
    if isinstance(value, list):
        return sorted({_special(v) for v in value})
    return value % 4 if isinstance(value, int) and value >= VOCAB_SIZE else value
