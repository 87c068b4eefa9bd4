"""The page holds every example, loads nothing, and nothing in the data becomes a part of it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from sft.inspection.page import render_page
from tests.inspection.stored import named_store, shown

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "{{ 7 * 7 }}",
    "</div></article>",
    "&lt;b&gt;",
    "<!--",
)


class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests want to know."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.articles, self.scripts, self.options, self.policy = [], [], [], [], ""
        self._open = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.articles.append({**dict(attrs), "text": "", "kinds": [], "ids": []})
        if tag == "option":
            self.options.append(dict(attrs)["value"])
        if tag == "meta" and dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"]
        if tag == "i":
            self.articles[-1]["ids"].append(int(dict(attrs)["data-i"]))
        if tag == "span" and self.articles and "text" in self._open:
            self.articles[-1]["kinds"].append(dict(attrs)["class"])
        if tag not in ("meta", "input"):
            self._open.append(dict(attrs).get("class", tag))

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        if "script" in self._open:
            self.scripts.append(data)
        elif "text" in self._open:
            self.articles[-1]["text"] += data


def page_of(examples, title="run"):
    store = named_store([(e.task, e.source, max(len(e.tokens), 2)) for e in examples])
    html = render_page(title, store, examples, "all there are")
    return html, Page(html)


def page_that_says(texts):
    examples = [
        shown(i, ("prompt", f"say {text}"), ("answer", text), ("stop", text), task=text, source=text)
        for i, text in enumerate(texts)
    ]
    return page_of(examples, title=texts[0])


@pytest.fixture(scope="module")
def hostile():
    return page_that_says(HOSTILE)


def test_data_is_only_ever_text(hostile):
    _, page = hostile
    assert [article["text"] for article in page.articles] == [f"say {t}{t}{t}" for t in HOSTILE]
    assert [article["data-task"] for article in page.articles] == list(HOSTILE)
    _, harmless = page_that_says([f"text {i}" for i in range(len(HOSTILE))])
    assert [(tag, list(attrs)) for tag, attrs in page.tags] == [(tag, list(attrs)) for tag, attrs in harmless.tags]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def test_one_script_may_run_and_it_writes_no_data(hostile):
    _, page = hostile
    assert len(page.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|eval", page.scripts[0])


def test_nothing_is_loaded_from_anywhere(hostile):
    html, page = hostile
    assert not [attrs for tag, attrs in page.tags if "src" in attrs or "href" in attrs]
    assert not re.search(r"url\(|@import|https?:", html)


def test_kinds_are_shown_apart_with_the_id_of_every_token():
    example = shown(3, ("special", "<s>"), ("prompt", "a| b"), ("answer", "c| d| e"), ("stop", "</s>"))
    _, page = page_of([example])
    (article,) = page.articles
    assert article["kinds"] == ["special", "prompt", "answer", "stop"]
    assert article["ids"] == list(range(7))
    assert article["text"] == "<s>a bc d e</s>"
    assert (article["id"], article["data-length"]) == ("row-3", "7")


def test_every_task_and_source_can_be_chosen():
    names = [f"task_{i:02d}" for i in range(60)]
    examples = [shown(i, ("answer", "x"), task=name, source=f"s{i % 3}") for i, name in enumerate(names)]
    html, page = page_of(examples)
    assert page.options == ["", *names, "", "s0", "s1", "s2"]
    assert "s0 (20)" in html


def test_long_examples_lose_their_middle_and_the_page_says_so():
    words = "|".join(f" {'w' * 60}{i}" for i in range(2000))
    examples = [shown(i, ("prompt", words), ("answer", words), ("stop", "</s>")) for i in range(30)]
    html, page = page_of(examples)
    assert len(html.encode()) < 10_000_000
    assert len(page.articles) == 30
    limit = int(re.search(r"Passages of more than (\d+) tokens", html)[1])
    text = page.articles[0]["text"]
    assert text.startswith(f" {'w' * 60}0 {'w' * 60}1 ")
    assert text.endswith(f" {'w' * 60}1999</s>")
    assert text.count(f"⋯ {2000 - limit:,} tokens are not shown ⋯") == 2


def test_short_examples_are_shown_whole():
    html, _ = page_of([shown(0, ("prompt", "a"), ("answer", "b"))])
    assert "not shown" not in html
    assert "without their middle" not in html
