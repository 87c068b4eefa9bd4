"""Turns the help texts that ship with Python (`pydoc_data.topics`) into subjects with their explanation.

An explanation is the first prose under a heading or a method's signature, on one line, without references to other
sections. Grammar, tables, code and version notes are left out.
"""

import keyword
import re
from dataclasses import dataclass
from pydoc_data.topics import topics

_MAX_CHARS = 520
_HEADING = re.compile(r"^(?P<title>\S.*)\n(?:\*{3,}|={3,}|-{3,})\n", re.MULTILINE)
_METHOD = re.compile(r"^(?P<title>(?:str|object|class)\.\w+)\(.*\)\n\n(?P<text>(?:   .*\n|\n)+)", re.MULTILINE)
_PLAIN_QUOTES = str.maketrans("“”’", '""\'')
# A note about a version or the like, which tells nothing to readers who do not know the thing yet.
_NOTE = re.compile(r"\* |\*\*|New in|Changed in|Deprecated|Note:|Availability")
# Refers to a table or text that the explanation would lack.
_POINTER = re.compile(r"following (?:table|methods|definition)|\bbelow\b|\babove\b|\bhere\b|\b[Ss]ections?\b")


@dataclass(frozen=True)
class Explanation:
    """What a part of the language is or does."""

    subject: str
    kind: str
    """`keyword`, `method` or `topic`."""
    text: str


def read_explanations() -> list[Explanation]:
    """The explanations in the order of their topics, each subject and each text once."""
    found = [explanation for name in sorted(topics) for explanation in _read_topic(name, topics[name])]
    by_subject = {explanation.subject.lower(): explanation for explanation in reversed(found)}
    by_text = {explanation.text: explanation for explanation in reversed(by_subject.values())}
    return list(by_text.values())


def _read_topic(name: str, text: str) -> list[Explanation]:
    explanations = []
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for index, (heading, end) in enumerate(zip(headings, ends, strict=True)):
        is_keyword = index == 0 and keyword.iskeyword(name)
        title = f"`{name}`" if is_keyword else _on_one_line(heading["title"]).replace('"', "`")
        prose = _first_prose(text[heading.end() : end])
        if prose and "Source code" not in prose:
            explanations.append(Explanation(title, "keyword" if is_keyword else "topic", prose))
    for method in _METHOD.finditer(text):
        prose = _first_prose("\n".join(line[3:] for line in method["text"].split("\n")))
        if prose:
            explanations.append(Explanation(f"`{method['title']}`", "method", prose))
    return explanations


def _first_prose(text: str) -> str:
    """The paragraphs up to the first grammar, list or code, as many as fit; empty where there are none."""
    prose: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if not re.match(r'["“*]?\w', block) or _NOTE.match(block):
            if prose:
                break
            continue
        paragraph = _on_one_line(block)
        fits = sum(map(len, prose)) + len(paragraph) <= _MAX_CHARS
        if not fits or not paragraph.endswith(".") or _POINTER.search(paragraph):
            break
        prose.append(paragraph)
    return " ".join(prose) if sum(map(len, prose)) >= 40 else ""


def _on_one_line(text: str) -> str:
    line = re.sub(r"(\w)-\n\s*(?=\w)", r"\1-", text)
    line = re.sub(r"\[\d+\]", "", line)
    line = re.sub(r"\s+", " ", line)
    line = re.sub(r"\s*\((?:[Ss]ee|see also)[^()]*(?:\([^()]*\)[^()]*)*\)", "", line)
    line = re.sub(r"\s*\bSee [^.]*\.(?= |$)", "", line)
    line = re.sub(r"(?<!\*)\*(\w[^*]*?)\*(?!\*)", r"\1", line)
    return line.translate(_PLAIN_QUOTES).strip()
