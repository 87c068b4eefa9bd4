"""Whether the code in an answer passes the tests of its question: pass@1, as in MBPP and HumanEval.

It runs in `sft.scoring.sandbox`, and only where `allow_code` is true: code of a model is code of a stranger.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from sft.scoring.metric import Metric
from sft.scoring.sandbox import CodeLimits, run_code
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict

_FENCED = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


class CodeTests(Settings):
    """Whether all tests pass."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "passed": Metric("tests passed", "answers that pass all tests", "higher", JUDGED, is_share=True)
    }
    needs: ClassVar[Need] = "tests"

    seconds: Annotated[float, Field(gt=0.0, le=600.0)] = 10.0
    """The most time for an answer and its tests."""
    memory_mib: Annotated[int, Field(ge=64, le=65536)] = 512
    """The most memory of each of its processes, in MiB."""
    num_processes: Annotated[int, Field(ge=1, le=64)] = 8
    """The most processes and threads."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        limits = CodeLimits(self.seconds, self.memory_mib, num_processes=self.num_processes)
        outcome = run_code(code_in(answer.text), question.tests, question.setup_code, limits)
        return Verdict({"passed": float(outcome.passed)}, outcome.reason)


def code_in(text: str) -> str:
    """The Python in an answer: its longest block in a code fence, also one that was cut; without a fence, all of it."""
    blocks = [found[2] for found in _FENCED.finditer(text) if found[1].lower() in ("", "python", "py", "python3")]
    return max(blocks, key=len) if blocks else text
