"""What a source of the config may say of its records: how CSV is written, what grades answers, how made ones are
approved.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from sft.config_effects import Affects, AffectsAsked, AffectsStore
from sft.config_section import Section


def _as_tab(value: Any) -> Any:
    return "\t" if value == "\\t" else value


class CsvConfig(Section):
    """How the rows of CSV and TSV files are written."""

    delimiter: AffectsStore[Annotated[str, BeforeValidator(_as_tab)] | None] = None
    """The character between cells. Default: a comma, in .tsv files a tab (`\\t`)."""
    quote: AffectsStore[str] = '"'
    """The character around cells that hold line ends or delimiters, doubled inside them; empty if there is none."""


class GradingConfig(Section):
    """The columns that hold what answers are measured by, besides the answer itself. They are not trained on."""

    references: AffectsAsked[str | None] = None
    """The column of other right answers: a text or a list of texts. Default: `references`, where there is one."""
    options: AffectsAsked[str | None] = None
    """The column of the answers to choose from: a list of texts. Default: `options`, `choices` or `answer_choices`."""
    tests: AffectsAsked[str | None] = None
    """The column of tests for an answer that is code: a text or a list of texts. Default: `tests` or `test_list`."""
    setup_code: AffectsAsked[str | None] = None
    """The column of code that runs before these tests: a text or a list of texts. Default: `setup_code`,
    `test_setup_code` or `test_imports`."""
    entry_point: AffectsAsked[str | None] = None
    """The column that names the function HumanEval's `check` tests. Default: `entry_point`, with tests in `test`."""
    marks: AffectsAsked[str | None] = None
    """The column of what people think of the record's own answer: a grade on the scale of a score `judge`, or one of
    its labels. `sft evaluate` then shows how far the judge agrees with them."""
    rejected: AffectsAsked[str | None] = None
    """The column of an answer that people like less than the record's own. `sft evaluate --judge-against` then shows
    how often the judge prefers the same side."""


class SampleRule(Section):
    """A reviewed random sample stands for all records."""

    sample: Annotated[float, Field(gt=0.0, le=1.0), Affects("store", by_content=True, held_by_plan=True)]
    """The error rate below which the upper end of the sample's interval has to lie (Wilson, 95 %): the bound of
    `sft review --sample`."""
    seed: Annotated[int, Affects("store", by_content=True, held_by_plan=True)] = 0
    """The seed of the random order: that of `sft review --seed`."""


def _rule_kind(value: Any) -> str:
    return "sample" if isinstance(value, dict | SampleRule) else "each"


# The form decides which one it is, so that a mistake in one is not also reported as a mistake in the other.
ApprovalRule = Annotated[
    Annotated[Literal["each"], Tag("each")] | Annotated[SampleRule, Tag("sample")], Discriminator(_rule_kind)
]
