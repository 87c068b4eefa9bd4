"""What is learned can be told from the rest, with colours and without."""

from sft.inspection.terminal import render_example, render_legend
from tests.inspection.stored import shown

EXAMPLE = shown(
    7,
    ("special", "<s>"),
    ("prompt", "What| is[bold]| it?"),
    ("answer", "A| [/b]kettle"),
    ("stop", "</s>"),
    ("prompt", "And| this?"),
    ("answer", "A| bell"),
    ("stop", "</s>"),
)
TEXT = "<s>What is[bold] it?A [/b]kettle</s>And this?A bell</s>"


def test_with_colours_each_kind_has_its_own():
    text = render_example(EXAMPLE, coloured=True)
    assert TEXT in text.plain
    styled = {}
    for span in text.spans:
        styled.setdefault(str(span.style), []).append(text.plain[span.start : span.end])
    styles = {words: style for style, parts in styled.items() for words in parts}
    assert styles["<s>"] not in (styles["</s>"], styles["A bell"])
    assert styles["A bell"] == styles["A [/b]kettle"] != styles["</s>"]
    assert not [words for words in styles if "What" in words]


def test_without_colours_marks_stand_around_what_is_learned():
    text = render_example(EXAMPLE, coloured=False)
    assert not text.spans
    assert "<s>What is[bold] it?⟦A [/b]kettle</s>⟧And this?⟦A bell</s>⟧" in text.plain


def test_the_header_says_what_the_example_is():
    for coloured in (True, False):
        header = render_example(EXAMPLE, coloured).plain
        for words in ("row 7", "task copy", "source basic", "basic.jsonl:8", "12 tokens, 6 learned"):
            assert words in header


def test_the_legend_names_every_kind_or_the_marks():
    legend = render_legend(coloured=True).plain
    assert all(kind in legend for kind in ("prompt", "answer", "stop", "special"))
    assert "⟦" in render_legend(coloured=False).plain
