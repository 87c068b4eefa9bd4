"""Compiles every Triton kernel to the machine code of an H100, without a GPU: `python -m tests.model.compile_kernels`.

It prints the name of each. Not in the process of the tests, whose Triton interprets.
"""

from collections.abc import Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sft.model import triton_kernels as kernels

H100 = GPUTarget("cuda", 90, 32)
NORM = {"FORM": "weight_after", "ROWS": 1, "COLUMNS": 4096}
CASES: list[tuple[Any, Mapping[str, Any]]] = [
    (kernels.norm_forward, NORM),
    (kernels.norm_forward, {**NORM, "FORM": "no_weight", "weight_ptr": None}),
    (kernels.norm_backward, {**NORM, "HAS_DWEIGHT": True}),
    (
        kernels.turn,
        {
            **{"X_STEP": 1, "Y_STEP": 2, "TABLE_STEP": 1, "ROUNDS": True, "BACK": True},
            **{"HEADS": 32, "PAIRS": 32, "KEPT": 64},
        },
    ),
    (kernels.gate_forward, {"ACTIVATION": "silu", "ROWS": 1, "COLUMNS": 2048}),
    (kernels.gate_backward, {"ACTIVATION": "gelu_tanh", "ROWS": 1, "COLUMNS": 2048}),
]


def type_of(name: str) -> str:
    if name in ("scale_ptr", "dweight_ptr"):
        return "*fp32"
    return "*bf16" if name.endswith("_ptr") else "fp32" if name == "eps" else "i32"


def main() -> None:
    for kernel, fixed in CASES:
        names = kernel.arg_names
        signature = {name: "constexpr" if name in fixed else type_of(name) for name in names}
        constants = {(names.index(name),): value for name, value in fixed.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        made = triton.compile(source, target=H100, options={"num_warps": 8, "enable_fp_fusion": False})
        assert made.asm["cubin"]
        print(kernel.__name__)  # noqa: T201  (the test reads it)


if __name__ == "__main__":
    main()
