"""Words are found in the same way whatever the text is written in."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from sft.scoring.words import words_of


@given(st.text(st.characters(max_codepoint=127)) | st.text())
def test_words_are_runs_of_letters_and_digits(text: str) -> None:
    plain = "".join(sign if sign.isascii() else " " for sign in text)
    expected = "".join(sign if sign.isalnum() else " " for sign in plain.lower()).split()
    assert words_of(plain) == expected
    # A letter that is not ASCII behind it takes the other way.
    assert words_of(f"{plain} é") == [*expected, "é"]
    assert words_of(text) == words_of(unicodedata.normalize("NFD", text))
