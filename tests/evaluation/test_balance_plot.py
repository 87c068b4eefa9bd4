"""The picture of a stage's balance shows every task it has room for, counts the rest, and is the same every time."""

import warnings
from dataclasses import fields
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sft.data.planning.mixture import MixtureRow
from sft.evaluation.balance_plot import MAX_TASKS, balance_figure, draw_balance


def rows_of(num_tasks, name="a_task_with_the_long_name_of_a_collection_{i:02}"):
    total = num_tasks * (num_tasks + 1) / 2
    return [
        MixtureRow(
            name.format(i=i), 10, 100, 1 / num_tasks, 10 + i, 100, (i + 1) / total, (i + 1) / total, 1 + i, 0.5, 0
        )
        for i in range(num_tasks)
    ]


@pytest.mark.parametrize("num_tasks", [1, 4, 60])
def test_each_task_is_named_once_and_no_two_lines_touch(num_tasks):
    figure = balance_figure("broad", "supervised_tokens", rows_of(num_tasks))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = figure.axes[0].get_yticklabels()
    num_shown = min(num_tasks, MAX_TASKS)
    assert len({label.get_text() for label in labels}) == num_shown
    boxes = sorted((label.get_window_extent(canvas.get_renderer()) for label in labels), key=lambda box: box.y0)
    assert all(below.y1 < above.y0 for below, above in zip(boxes, boxes[1:], strict=False))
    assert all(box.x0 >= 0 for box in boxes)
    # The bars keep most of the picture, whatever the names are.
    assert figure.axes[0].get_position().width > 0.35


def test_what_is_not_shown_is_counted():
    note = balance_figure("broad", "examples", rows_of(60)).axes[0].get_xlabel()
    assert "40 largest" in note
    assert f"20 with {sum(range(1, 21)) / 1830:.1%}" in note
    assert balance_figure("broad", "examples", rows_of(40)).axes[0].get_xlabel() == ""


def test_the_same_rows_give_the_same_file(tmp_path: Path):
    for name in ("a.png", "b.png"):
        draw_balance(tmp_path / name, "broad", "examples", rows_of(4, name="a$b$c <i>{i}</i>"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_names_of_any_script_and_of_any_length_are_drawn_without_a_warning(tmp_path):
    names = ["$x_{", "\x1b[31m\u202e", "名前 𓀀 ⵣ \ue000", "word " * 600, "line\nbreak"]
    rows = [MixtureRow(**{f.name: name if f.name == "task" else 0.2 for f in fields(MixtureRow)}) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_balance(tmp_path / "balance.png", "broad $x", "supervised_tokens", rows)
    assert (tmp_path / "balance.png").stat().st_size > 10_000
