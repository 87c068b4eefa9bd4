"""What oneDNN needs to multiply in bfloat16, as the kernel of the operating system lists it."""

import platform
import re
from pathlib import Path

import pytest

from sft.model.cpu_arithmetic import computes_bfloat16


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors name their instructions otherwise")
def test_a_processor_with_avx_512_computes_in_bfloat16() -> None:
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert found is not None
    assert computes_bfloat16() or not {"avx512bw", "avx512vl", "avx512dq"} <= set(found[1].split())
    assert not computes_bfloat16() or {"avx512bw", "avx_ne_convert", "avx_vnni_int8"} & set(found[1].split())
