import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.data.keys import derive_keys, row_key
from evaluator.errors import InputError
from evaluator.records import is_safe_key

names = st.lists(st.text(alphabet="ab._-/é 猫\udc80", min_size=1, max_size=6), unique=True)


@given(names)
def test_keys_are_safe_and_injective(found: list[str]) -> None:
    keys = derive_keys(found)
    assert all(is_safe_key(key) for key in keys)
    assert len(set(keys)) == len(found)


@given(names, st.randoms(use_true_random=False))
def test_keys_do_not_depend_on_the_order(found: list[str], random) -> None:
    shuffled = random.sample(found, len(found))
    assert dict(zip(found, derive_keys(found), strict=True)) == dict(
        zip(shuffled, derive_keys(shuffled), strict=True)
    )


@given(st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), unique=True))
def test_safe_names_stay_as_they_are(found: list[str]) -> None:
    assert derive_keys(found) == found


def test_dots_and_folders_become_underscores() -> None:
    assert derive_keys(["a/img.v1", "b c"]) == ["a_img_v1", "b_c"]


def test_a_safe_name_wins_over_those_that_become_like_it() -> None:
    dotted, safe = derive_keys(["a.b", "a_b"])
    assert safe == "a_b"
    assert dotted.startswith("a_b_")


def test_stems_that_differ_by_extension_only_get_keys_of_their_own() -> None:
    keys = derive_keys(["a.jpg", "a.png"], stems=["a", "a"])
    assert len(set(keys)) == 2


def test_long_names_are_shortened_and_told_apart() -> None:
    keys = derive_keys(["x" * 300 + "1", "x" * 300 + "2"])
    assert len(set(keys)) == 2
    assert all(is_safe_key(key) for key in keys)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected distinct names.*'a\.b'"):
        derive_keys(["a.b", "a.b"])


def test_line_numbers_are_padded_to_a_fixed_width() -> None:
    assert row_key(12) == "0000012"
    assert is_safe_key(row_key(123456789))
