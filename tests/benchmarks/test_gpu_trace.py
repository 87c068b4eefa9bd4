"""What a trace says of a GPU, by traces whose answers are known."""

import pytest

from benchmarks.gpu.trace import Event, analyse, class_of, events_of, idle_share, is_wait


def kernel(name: str, start: float, duration: float) -> Event:
    return Event(name, "kernel", start, duration)


def test_idle_is_what_no_stream_covers() -> None:
    assert idle_share([kernel("a", 0, 10), kernel("b", 20, 10)]) == pytest.approx(1 / 3)
    # Two streams overlap, and one event lies inside another.
    assert idle_share([kernel("a", 0, 10), kernel("b", 5, 10), kernel("c", 6, 1)]) == 0
    assert idle_share([kernel("b", 20, 10), kernel("a", 0, 10)]) == pytest.approx(1 / 3)
    assert idle_share([]) is None


def test_waits_are_calls_in_which_the_host_stands_still() -> None:
    waits = ["cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuCtxSynchronize", "cudaMemcpy"]
    assert all(map(is_wait, waits))
    assert not any(map(is_wait, ["cudaMemcpyAsync", "cudaLaunchKernel", "cudaStreamWaitEvent", "cudaStreamQuery"]))


def test_findings_of_a_recorded_step() -> None:
    """In the form of Chrome's traces, with what a trace holds besides."""
    rows = [
        ("cudaLaunchKernel", "cuda_runtime", 0, 1),
        ("nvjet_tst_128x256_64x4_2x1_v_bz_TNT", "kernel", 2, 60),
        ("pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel", "kernel", 62, 20),
        ("void at::native::vectorized_elementwise_kernel<4, …>", "kernel", 82, 10),
        ("cudaMemcpyAsync", "cuda_runtime", 90, 2),
        ("Memcpy DtoH (Device -> Pageable)", "gpu_memcpy", 97, 5),
        ("cudaStreamSynchronize", "cuda_runtime", 92, 10),
        ("cudaStreamSynchronize", "cpu_op", 92, 10),
        ("cudaDeviceSynchronize", "cuda_runtime", 200, 1),
    ]
    complete = [{"ph": "X", "name": n, "cat": c, "ts": t, "dur": d} for n, c, t, d in rows]
    others = [{"ph": "M", "name": "process_name"}, {"ph": "i", "name": "mark", "ts": 1}, {"ph": "X", "name": "open"}]
    found = analyse(events_of({"traceEvents": complete + others}))
    assert dict(found.waits) == {"cudaStreamSynchronize": 1}, "what the profiler waits for at its end does not count"
    assert (found.num_waits, found.num_to_host, found.num_pageable) == (1, 1, 1)
    assert found.idle_share == pytest.approx(5 / 100)
    expected = {"matrix products": 60, "attention": 20, "elementwise": 10, "copies": 5}
    assert found.shares == {name: pytest.approx(time / 95) for name, time in expected.items()}
    assert found.longest[0][0].startswith("nvjet")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ncclDevKernel_AllGather_RING_LL", "communication"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor…>", "optimizer"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "matrix products"),
        ("norm_backward", "our kernels"),
        ("turn", "our kernels"),
        ("_rms_norm_forward_kernel", "Liger"),
        ("void at::native::reduce_kernel<512, 1, …>", "reductions"),
        ("void at::native::indexSelectLargeIndex<…>", "indices"),
        ("something new", "other"),
    ],
)
def test_kernels_have_a_class(name: str, kind: str) -> None:
    assert class_of(kernel(name, 0, 1)) == kind
    assert class_of(Event(name, "gpu_memcpy", 0, 1)) == "copies"
