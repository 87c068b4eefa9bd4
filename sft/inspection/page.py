"""Shown examples as one self-contained HTML page, with filters by task, source, length and text.

Invariant: the page loads nothing, and text from the data stays text: it is escaped, the script reads it and never
writes it, and the page's policy lets no other script run. The page stays below 10 MB: if the examples are too long for
that, the middle of long passages is left out, and the page says so.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from sft.data.token_store import TokenStore
from sft.inspection.token_view import KIND_TEXTS, KINDS, ShownExample, ShownToken, group_kinds
from sft.pages import page_environment, page_script

_BUDGET_BYTES = 8_000_000
_PASSAGE_LIMITS = (1024, 512, 256, 128, 64, 32)


def render_page(title: str, store: TokenStore, examples: Sequence[ShownExample], selection: str) -> str:
    """The page as text; `selection` describes how the examples were chosen."""
    environment = page_environment("sft.inspection")
    environment.filters["number"] = lambda value: f"{value:,}"
    bodies, limit = _fit(examples, _BUDGET_BYTES)
    num_tokens, num_supervised = int(store.offsets[-1]), int(store.num_supervised.sum(dtype="int64"))
    return environment.get_template("page.html.j2").render(
        title=title,
        script=page_script(environment, "page_script.j2"),
        kinds=[(kind, KIND_TEXTS[kind]) for kind in KINDS],
        facts=[
            ("rows in the store", f"{len(store):,}", f"{len(store.tasks):,} tasks"),
            ("tokens", f"{num_tokens:,}", f"{num_tokens / len(store):,.0f} a row"),
            ("learned", f"{num_supervised:,}", f"{num_supervised / num_tokens:.1%} of the tokens"),
            ("on this page", f"{len(examples):,} rows", selection),
        ],
        tasks=_counted(example.task for example in examples),
        sources=_counted(example.source for example in examples),
        lengths=(min(len(e.tokens) for e in examples), max(len(e.tokens) for e in examples)),
        limit=limit,
        examples=list(zip(examples, bodies, strict=True)),
    )


def _counted(names: Any) -> list[tuple[str, int]]:
    return sorted(Counter(names).items())


def _fit(examples: Sequence[ShownExample], budget_bytes: int) -> tuple[list[Markup], int | None]:
    """The examples' bodies, and the limit on the tokens shown of a passage, if there had to be one."""
    for limit in (None, *_PASSAGE_LIMITS):
        bodies = [_body(example.tokens, limit) for example in examples]
        if limit == _PASSAGE_LIMITS[-1] or sum(len(body.encode()) for body in bodies) <= budget_bytes:
            break
    return bodies, limit


def _body(tokens: Sequence[ShownToken], limit: int | None) -> Markup:
    passages = []
    for kind, run in group_kinds(tokens):
        if limit is None or len(run) <= limit:
            inside = _tokens(run)
        else:
            left_out = Markup("<em>⋯ {:,} tokens are not shown ⋯</em>").format(len(run) - limit)
            inside = _tokens(run[: limit // 2]) + left_out + _tokens(run[-(limit // 2) :])
        passages.append(Markup("<span class={}>{}</span>").format(kind, inside))
    return Markup("").join(passages)


def _tokens(run: Sequence[ShownToken]) -> Markup:
    # Not by Markup.format: a page has hundreds of thousands of tokens.
    return Markup("".join([f"<i data-i={token.token_id:d}>{escape(token.text)}</i>" for token in run]))
