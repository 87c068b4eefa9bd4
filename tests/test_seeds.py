"""Seeds by name."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sft.seeds import derive_seed

NAMES = st.lists(st.text("abc", max_size=3) | st.integers(0, 9), max_size=3).map(tuple)


@settings(deadline=None)
@given(st.integers(0, 2**32), NAMES)
def test_a_seed_fits_numpy_and_torch(run_seed: int, names: tuple[str | int, ...]) -> None:
    assert 0 <= derive_seed(run_seed, *names) < 2**63


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 99), NAMES, NAMES)
def test_seeds_are_equal_exactly_where_run_seed_and_names_are(
    first: int, second: int, names: tuple[str | int, ...], others: tuple[str | int, ...]
) -> None:
    def words(values: tuple[str | int, ...]) -> list[str]:
        return [str(value) for value in values]

    same = (first, words(names)) == (second, words(others))
    assert (derive_seed(first, *names) == derive_seed(second, *others)) == same


def test_seeds_never_change() -> None:
    # A run that is resumed with another version of the code must draw what it drew before.
    assert derive_seed(17, "packing", "broad") == 265020867493390403
