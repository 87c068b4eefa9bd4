"""What reaches a terminal: text, whatever names and errors of others hold."""

import io
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from launcher.cli import main
from launcher.console import FitConsole, fit_log, styled
from sft.data.planning.mixture import MixtureRow
from sft.evaluation.tables import mixture_table
from sft.pages import page_environment
from sft.printable import fit_message, fit_to_print, has_no_glyph, short_name

ROOT = Path(__file__).parents[2]
HOSTILE = "a\x1b[31m\x1b]0;title\x07b\u202eevil\u2066\x9b2J\rc[red]d[/red]:smile:\x08\ud800"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printed(*renderables: object, **options: object) -> str:
    file = io.StringIO()
    FitConsole(file=file, width=200, **options).print(*renderables)
    return file.getvalue()


def table(cell: object) -> Table:
    found = Table("name")
    found.add_row(cell)
    return found


@pytest.mark.parametrize(
    "renderable",
    [HOSTILE, Text(HOSTILE), Text.assemble((HOSTILE, "bold")), styled("[red]{}[/]", HOSTILE), table(HOSTILE),
     table(Text(HOSTILE)), [HOSTILE], {HOSTILE: HOSTILE}, Exception(HOSTILE)],
)  # fmt: skip
def test_no_control_character_reaches_the_terminal_by_any_way(renderable: object) -> None:
    shown = printed(renderable)
    assert CONTROL.search(shown) is None
    assert re.search(r"a(⟨U\+001B⟩|\\x1b)\[31m", shown), "it is shown, not left out"


@pytest.mark.parametrize("renderable", [HOSTILE, table(HOSTILE), styled("{}", HOSTILE)])
def test_nothing_in_a_name_is_markup(renderable: object) -> None:
    assert "[red]d[/red]:smile:" in printed(renderable)


def test_lines_of_a_table_end_in_no_blanks() -> None:
    for found in (table("a"), Table("name", "longer name", title="a title", caption="c", box=None)):
        found.add_row("b" * 20, Text("c  ", style="bold"))
        lines = printed(found).splitlines()
        assert lines == [line.rstrip(" ") for line in lines]


@given(st.text())
def test_any_text_is_printed_without_a_control_character_and_none_is_changed_that_has_a_glyph(text: str) -> None:
    shown = fit_to_print(text)
    assert CONTROL.search(shown) is None
    assert len(short_name(text)) <= 60
    assert "\n" not in short_name(text)
    if "://" not in text and not any(has_no_glyph(char) for char in text.replace("\n", "")):
        assert shown == text


def test_colours_of_our_own_stay_and_those_of_a_name_do_not() -> None:
    shown = printed(styled("[red]{}[/]", "\x1b[32mgreen"), force_terminal=True, color_system="standard")
    assert "\x1b[31m" in shown
    assert "\x1b[32m" not in shown


def test_a_bar_shows_a_name_as_text() -> None:
    file = io.StringIO()
    console = FitConsole(file=file, width=300)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bars:
        bars.add_task(HOSTILE)
        bars.add_task("a[red]b[/]")
    assert CONTROL.search(file.getvalue()) is None
    assert "a[red]b[/]" in file.getvalue()


def test_a_log_of_elsewhere_keeps_its_colours_and_moves_no_cursor() -> None:
    assert (
        fit_log("\x1b[36m(pid=1)\x1b[0m 10%\r20%\r\n\x1b[2J\x07")
        == "\x1b[36m(pid=1)\x1b[0m 10%\n20%\n⟨U+001B⟩[2J⟨U+0007⟩"
    )


def test_a_long_name_floods_nothing() -> None:
    name = "begin " + "word " * 600 + "end"
    row = MixtureRow(**{field.name: name if field.name == "task" else 1 for field in fields(MixtureRow)})
    shown = printed(mixture_table("s", [row]))
    assert len(shown) < 3_000
    assert "begin" in shown
    assert len(fit_message("a" * 100_000)) < 1_100
    assert len(fit_message("a b " * 100_000)) < 21_000
    assert short_name(name).startswith("begin word")
    assert short_name(name).endswith("end")


def test_pages_are_fit_too() -> None:
    shown = page_environment("sft.evaluation").from_string("<b>{{ name }}</b>").render(name=HOSTILE + "<script>")
    assert CONTROL.search(shown) is None
    assert shown.startswith("<b>a⟨U+001B⟩[31m")
    assert "<script>" not in shown


def test_a_hostile_name_in_an_error_is_shown_as_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{HOSTILE[:-1]}.yaml".replace("/", "")
    assert main(["plan", str(path)]) == 2
    config = tmp_path / "c.yaml"
    config.write_text('"\\e[31m\\a": 1\n"[red]": "\\u202E"\n')
    assert main(["plan", str(config), "\x1b[2J=x"]) == 2
    out, err = capfd.readouterr()
    assert CONTROL.search(out + err) is None
    assert "⟨U+001B⟩" in err
    assert "[red]" in err


@pytest.mark.parametrize("language", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "LANG": "C"}])
def test_a_terminal_of_ascii_gets_no_traceback(language: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run: {{name: a, dir: {tmp_path}/ümläut}}\nmodel: {{path: {tmp_path}/模型}}\n"
        f"data: {{sources: [{{name: a, path: {tmp_path}/a.jsonl}}], cache_dir: {tmp_path}/cache}}\n"
        "stages: [{name: s, budget: {steps: 1}, optimizer: {lr: 1.0e-3}}]\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONCOERCECLOCALE": "0", **language}
    for changes, code in (((), 0), (("train.packs_per_step=…",), 2)):
        command = [sys.executable, "-m", "launcher", "plan", str(config), *changes]
        done = subprocess.run(command, capture_output=True, timeout=120, env=environment, check=False)
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        assert (done.stdout + done.stderr).isascii()
