"""The head's loss and gradient: from one pass over the logits, and as plain autograd computes them, chunk by chunk.

    OMP_NUM_THREADS=1 python -m benchmarks.head                # CPU
    python -m benchmarks.head --device cuda --tokens 8192

`plain` computes the logits of each chunk twice, in the forward and in the backward pass, in float32, with the scale
as a pass of its own. Both sides run in turn on the same random hidden states, in bfloat16 and in float32.

    products  operations of matrix products, in units of one product over all tokens and the whole vocabulary
    moved     bytes that all other operators read and write, for each logit
    seconds   CPU seconds of one pass forward and backward, median; on a GPU seconds of the device
    peak      on a GPU: the most memory beyond weight and hidden states, MiB
    error     of the weight's gradient, relative, beside float64 (only with --errors: a small head, many chunks)
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from sft.model.fused_nll import Logits, fused_nll

SHAPES = {"Llama of 8 M": (8192, 288), "SmolLM2-135M": (49152, 576), "Qwen2.5 0.5B": (151936, 896)}
GPU_SHAPES = {"Qwen2.5 0.5B": (151936, 896), "Qwen2.5 1.5B": (151936, 1536), "Llama 3 8B": (128256, 4096)}
Head = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--chunks", type=int, nargs="*", default=[256, 1024], help="tokens of a chunk")
    parser.add_argument("--shapes", nargs="*", help="names of shapes; all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    if options.errors:
        print_errors(options.device)
        return
    print("| head | dtype | chunk | side | products | moved, B a logit | seconds | plain / fused | peak, MiB |")
    print("|---|---|---:|---|---:|---:|---:|---:|---:|")
    shapes = SHAPES if options.device == "cpu" else GPU_SHAPES
    for name in options.shapes or shapes:
        for dtype in (torch.bfloat16, torch.float32):
            for chunk in options.chunks:
                print_case(name, *shapes[name], dtype, chunk, options)


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
    def measure(hidden: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(linear(hidden, weight).float() * 1.0, targets, reduction="none")

    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([checkpoint(measure, *piece, use_reentrant=False) for piece in pieces])


def fused(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
    return fused_nll(hidden, weight, None, targets, Logits(chunk))


SIDES: dict[str, Head] = {"plain": plain, "fused": fused}


def drawn(tokens: int, vocab: int, hidden: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator(device).manual_seed(0)
    states = torch.randn(tokens, hidden, generator=draw, device=device).to(dtype).requires_grad_()
    weight = (0.02 * torch.randn(vocab, hidden, generator=draw, device=device)).to(dtype).requires_grad_()
    return states, weight, torch.randint(0, vocab, (tokens,), generator=draw, device=device)


def print_case(name: str, vocab: int, hidden: int, dtype: torch.dtype, chunk: int, options: argparse.Namespace) -> None:
    inputs = drawn(options.tokens, vocab, hidden, dtype, options.device)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.runs + 1):
        for side, head in SIDES.items():
            seconds[side].append(timed(head, inputs, chunk, options.device))
    medians = {side: statistics.median(found[1:]) for side, found in seconds.items()}
    for side, head in SIDES.items():
        with FlopCounterMode(display=False) as flops, Moved() as moved:
            step(head, inputs, chunk)
        products = flops.get_total_flops() / (2 * options.tokens * vocab * hidden)
        a_logit = moved.num_bytes / (options.tokens * vocab)
        ratio = f"{medians['plain'] / medians['fused']:.2f}" if side == "fused" else ""
        peak = f"{peak_bytes(head, inputs, chunk) / 2**20:,.0f}" if options.device == "cuda" else ""
        cells = (name, str(dtype).removeprefix("torch."), chunk, side, f"{products:.2f}", f"{a_logit:.0f}")
        print("|", " | ".join(map(str, (*cells, f"{medians[side]:.3f}", ratio, peak))), "|", flush=True)


def step(head: Head, inputs: tuple[Tensor, Tensor, Tensor], chunk: int) -> None:
    for part in inputs[:2]:
        part.grad = None
    (head(*inputs, chunk).sum() * (1 / len(inputs[2]))).backward()


def timed(head: Head, inputs: tuple[Tensor, Tensor, Tensor], chunk: int, device: str) -> float:
    if device == "cuda":
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        step(head, inputs, chunk)
        done.record()
        done.synchronize()
        return begun.elapsed_time(done) / 1000
    started = time.process_time()
    step(head, inputs, chunk)
    return time.process_time() - started


def peak_bytes(head: Head, inputs: tuple[Tensor, Tensor, Tensor], chunk: int) -> int:
    for part in inputs[:2]:
        part.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(head, inputs, chunk)
    return torch.cuda.max_memory_allocated() - before


class Moved(TorchDispatchMode):
    """Bytes that operators other than matrix products and views read and write, if nothing stays in a cache."""

    num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func._overloadpacket not in flop_registry:
            results = result if isinstance(result, (tuple, list)) else [result]
            reads = not func._overloadpacket._qualified_op_name.startswith(("aten::empty", "aten::new_", "aten::zeros"))
            read = [part for part in args if isinstance(part, Tensor)] if reads else []
            # What copy_ overwrites is not read.
            read = read[1:] if func._overloadpacket is torch.ops.aten.copy_ else read
            written = [] if "empty" in func.name() else [part for part in results if isinstance(part, Tensor)]
            self.num_bytes += sum(part.nbytes for part in (*read, *written))
        return result


def print_errors(device: str) -> None:
    """What the number of chunks does to the gradient of a head in bfloat16."""
    vocab, hidden = 512, 64
    print("| tokens | chunk | plain | fused |")
    print("|---:|---:|---:|---:|")
    for tokens, chunk in ((1024, 1024), (8192, 1024), (32768, 1024), (32768, 4096), (131072, 1024)):
        torch.manual_seed(0)
        states = (torch.randn(tokens, hidden) + 0.5 * torch.randn(hidden)).bfloat16().to(device)
        weight = (0.15 * torch.randn(vocab, hidden)).bfloat16().to(device)
        targets = torch.multinomial(torch.softmax(2 * torch.randn(vocab), 0), tokens, replacement=True).to(device)
        exact = weight.double().requires_grad_()
        (cross_entropy(linear(states.double(), exact), targets, reduction="sum") / tokens).backward()
        assert exact.grad is not None
        errors = []
        for head in SIDES.values():
            found = weight.clone().requires_grad_()
            (head(states, found, targets, chunk).sum() / tokens).backward()
            assert found.grad is not None
            errors.append(float((found.grad.double() - exact.grad).norm() / exact.grad.norm()))
        print(f"| {tokens:,} | {chunk:,} | {errors[0]:.2%} | {errors[1]:.2%} |", flush=True)


if __name__ == "__main__":
    main()
