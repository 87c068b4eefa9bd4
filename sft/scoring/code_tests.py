"""Whether the code in an answer passes the tests of its question: pass@1, as in MBPP and HumanEval.

It runs in `sft.scoring.sandbox`, and only where `allow_code` is true: code of a model is code of a stranger.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from sft.scoring.metric import Metric
from sft.scoring.sandbox import CodeLimits, run_code
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict

_FENCED = re.compile(
    r"^(?P<indent>[ \t]*)```[ \t]*(?P<language>\w*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("", "python", "py", "python3")
_DEFINED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)", re.MULTILINE)
_ONLY_IMPORTS = re.compile(r"(?:\s*^(?:(?:import|from)[ \t]|#)[^\n]*$)+\s*", re.MULTILINE)


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
        """1 or 0; failed if the tests, which are the record's, cannot tell."""
        if wrong := what_is_wrong(question.tests):
            return Verdict({}, wrong, failed=True)
        limits = CodeLimits(self.seconds, self.memory_mib, num_processes=self.num_processes)
        code = code_in(answer.text, [*question.tests, question.setup_code])
        outcome = run_code(code, question.tests, question.setup_code, limits)
        return Verdict({"passed": float(outcome.passed)}, outcome.reason)


def what_is_wrong(tests: Sequence[str]) -> str:
    """Why all code would pass these tests, or none; empty if they can tell.

    Tests that only define something never raise: so do HumanEval's, whose `check` has still to be called (see
    `sft.data.formats.grading`).
    """
    try:
        statements = [statement for test in tests for statement in ast.parse(test).body]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"a test of the record is no Python: {error}"
    if any(map(_can_fail, statements)):
        return ""
    return (
        "the record's tests check nothing: add the line that calls what they define, such as check(NAME), or for a "
        "function `check` a column `entry_point` with the name of the function that it checks"
    )


def _can_fail(statement: ast.stmt) -> bool:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Import() | ast.ImportFrom():
            return False
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):  # the module has another name
            return False
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.Assign(value=value) | ast.AnnAssign(value=value):
            return value is not None and any(isinstance(part, ast.Call) for part in ast.walk(value))
    return True


def code_in(text: str, tests: Sequence[str]) -> str:
    """The Python in an answer; without a code fence, all of it. A block that was cut counts, too.

    Of several blocks, those belong to it that define a function or a class which the tests name, or which another of
    these blocks names; with those that only import. Examples of use, output and tests of its own are none of them. If
    no block defines such, it is the longest one.
    """
    blocks = [_block(found) for found in _FENCED.finditer(text) if found["language"].lower() in _PYTHON]
    if len(blocks) < 2:
        return blocks[0] if blocks else text
    names, needed, left = _words("\n".join(tests)), set[int](), {*range(len(blocks))}
    while new := {number for number in left if names & {*_DEFINED.findall(blocks[number])}}:
        needed |= new
        left -= new
        names = names.union(*(_words(blocks[number]) for number in new))
    if not needed:
        return max(blocks, key=len)
    return "\n".join(block for i, block in enumerate(blocks) if i in needed or _ONLY_IMPORTS.fullmatch(block))


def _block(found: re.Match[str]) -> str:
    """The code of a fence, which may stand in a list: without the white space that its fence has."""
    return re.sub(rf"^[ \t]{{0,{len(found['indent'])}}}", "", found["code"], flags=re.MULTILINE)


def _words(text: str) -> set[str]:
    return {*re.findall(r"\w+", text)}
