"""No word of a table is lost, however narrow the terminal is."""

from io import StringIO

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.console import FitConsole

HEADINGS = ("stage", "packs", "supervised", "a step", "traffic, GiB", "what changes it")
ROWS = [
    ("broad", "8", "1,234,567", "12.50 s", "0.0", "activation_checkpointing: true"),
    ("narrow", "1,400", "–", "≤ 3 s", "12.1", "offload the optimizer to the host"),
]


def printed(table: Table, width: int) -> str:
    console = FitConsole(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def example(**options: object) -> Table:
    table = Table(title="Work", caption="traffic: of each worker", **options)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for row in ROWS:
        table.add_row(*row)
    return table


@pytest.mark.parametrize("options", [{}, {"box": box.SIMPLE_HEAD, "pad_edge": False}], ids=["lines", "plain"])
def test_every_word_of_a_table_is_shown_whole_and_in_the_width_of_the_terminal(options: dict[str, object]) -> None:
    words = {word for text in (*HEADINGS, *ROWS[0], *ROWS[1], "Work") for word in text.split()}
    for width in range(50, 140):
        text = printed(example(**options), width)
        assert words <= set(text.replace("│", " ").replace("┃", " ").split()), (width, text)
        assert max(map(len, text.splitlines())) <= width


def test_where_a_table_has_no_room_each_row_is_lines() -> None:
    lines = [line.rstrip() for line in printed(example(), 50).splitlines()]
    assert lines[:4] == ["Work", "stage            broad", "packs            8", "supervised       1,234,567"]
    assert lines.count("") == len(ROWS)
    assert lines[-1] == "traffic: of each worker"


def test_where_there_is_room_a_table_is_what_rich_makes_of_it() -> None:
    plain = Console(file=StringIO(), width=140)
    plain.print(example())
    lines = plain.file.getvalue().splitlines()
    assert printed(example(), 140).splitlines() == [line.rstrip(" ") for line in lines]
