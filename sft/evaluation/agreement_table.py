"""How far judges agree with people, for a console and in sentences."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from sft.evaluation.marks import TaskAgreement
from sft.evaluation.score_texts import interval_text
from sft.evaluation.tables import console_table, number
from sft.printable import counted, short_name
from sft.scoring.statistics import Interval

_CAPTION = (
    "The judge grades the records' own answers, which people marked. Equal: in percent, the same grade.\n"
    "Agreement: 0 is what chance gives, 1 is full; –: one of both says always the same, or marks are few."
)


def agreement_table(found: Sequence[TaskAgreement]) -> Table:
    """A row for each task."""
    has_gaps = any(one.num_not_graded or one.num_unknown for one in found)
    table = console_table("How far the judge agrees with people, with 95 % intervals")
    table.caption = _CAPTION
    table.add_column("task", no_wrap=True)
    for name in ("marks", "equal", "agreement", *(("not graded", "no grade") if has_gaps else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        agreement = one.agreement
        cells = [f"{agreement.num_marks:,}", interval_text(agreement.equal, True)]
        cells += [f"{agreement.name} {coefficient_text(agreement.coefficient)}"]
        cells += [f"{one.num_not_graded:,}", f"{one.num_unknown:,}"] if has_gaps else []
        table.add_row(Text(short_name(one.task)), *cells)
    return table


def agreement_sentences(found: Sequence[TaskAgreement]) -> Iterator[str]:
    """A sentence for each task."""
    for one in found:
        agreement = one.agreement
        same = f"{interval_text(agreement.equal, True)} % the same, " if agreement.equal.num_examples else ""
        yield (
            f"{one.task}: {same}{agreement.name} {coefficient_text(agreement.coefficient)}, "
            f"at {counted(agreement.num_marks, 'mark')}"
        )


def coefficient_text(interval: Interval) -> str:
    """`0.55 0.31…0.74`; a dash where there is none."""
    value, *ends = (number(end, 2).replace("-", "−") for end in (interval.value, interval.low, interval.high))
    return value if value == "–" else f"{value} {'…'.join(ends)}"
