"""A config with comments reads back as it was, whatever its values and comments are."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sft.config_yaml import parse_yaml
from sft.first_config.commented import Said, without_comments, write_commented

NAMES = st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True)
TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["no", "~", "1e5", "2024-01-01", "a b", "a: b", "a #b", "{x", "010"])
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
PLAIN = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS, max_size=4))
COMMENTS = st.one_of(st.just(""), st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=200))
VALUES = st.one_of(PLAIN, st.builds(Said, PLAIN, COMMENTS))
SECTIONS = st.recursive(
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(
        NAMES, st.one_of(VALUES, inner, st.lists(inner, min_size=1, max_size=3)), min_size=1, max_size=4
    ),
    max_leaves=6,
)


@given(st.dictionaries(NAMES, SECTIONS, min_size=1, max_size=3), COMMENTS)
def test_what_is_written_is_read(content: dict[str, Any], comment: str) -> None:
    text = write_commented(content, [comment])
    assert parse_yaml(text, "here").content == without_comments(content)
    assert max(map(len, text.splitlines())) <= 120 or '"' in text


def test_a_reason_stands_behind_its_value_and_above_it_where_it_is_long() -> None:
    content = {"train": {"packs_per_step": Said(8, "few"), "packs_per_micro_batch": Said(2, "because " * 20)}}
    text = write_commented(content, ["Made for you."])
    assert text.splitlines()[:3] == ["# Made for you.", "train:", "  packs_per_step: 8  # few"]
    assert text.splitlines()[-1] == "  packs_per_micro_batch: 2"
    assert text.count("because") == 20
