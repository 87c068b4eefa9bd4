"""Shown examples as text for a console: coloured or, without colours, with marks around learned text."""

from itertools import groupby

from rich.text import Text

from sft.inspection.token_view import KIND_TEXTS, KINDS, LEARNED, Kind, ShownExample, group_kinds

_STYLES: dict[Kind, str] = {
    "prompt": "",
    "answer": "bold green",
    "stop": "bold black on green",
    "special": "blue",
}
_OPEN, _CLOSE = "⟦", "⟧"


def render_legend(coloured: bool) -> Text:
    """The meaning of the colours, or of the marks."""
    if not coloured:
        return Text(f"{_OPEN}learned, with the token that ends the turn{_CLOSE}; everything else is only read\n")
    parts = [(f" {kind} ", _STYLES[kind], f" {KIND_TEXTS[kind]}   ") for kind in KINDS]
    return Text.assemble(*(piece for name, style, text in parts for piece in ((name, style), (text, "dim"))), "\n")


def render_example(example: ShownExample, coloured: bool) -> Text:
    """A header that describes the example, and its tokens."""
    counts = f"{len(example.tokens):,} tokens, {example.num_supervised:,} learned"
    rule = "─" * 78 + "\n"
    place = f"{example.place} · {example.difficulty}" if example.difficulty else example.place
    header = f"row {example.row} · task {example.task} · source {example.source} · {counts}\n{place}\n"
    if not coloured:
        runs = groupby(example.tokens, key=lambda token: token.kind in LEARNED)
        joined = ((learned, "".join(token.text for token in run)) for learned, run in runs)
        return Text(rule + header + "".join(f"{_OPEN}{part}{_CLOSE}" if learned else part for learned, part in joined))
    text = Text.assemble((rule, "dim"), (header, "bold"))
    for kind, run in group_kinds(example.tokens):
        text.append("".join(token.text for token in run), _STYLES[kind])
    return text
