"""The computed shuffle is a bijection that looks shuffled."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.data.permutation import Permutation, key_of


@settings(max_examples=60)
@given(size=st.integers(1, 500), key=st.integers(0, 2**64 - 1))
def test_every_index_is_hit_once(size, key):
    permutation = Permutation(size, key)

    assert sorted(permutation(i) for i in range(size)) == list(range(size))


def test_large_ranges_need_no_memory():
    size = 10**15 + 37

    images = {Permutation(size, 7)(i) for i in range(2000)}

    assert len(images) == 2000
    assert all(0 <= image < size for image in images)
    # spread over the whole range: each tenth gets its share
    tenths = Counter(image * 10 // size for image in images)
    assert all(140 < tenths[i] < 260 for i in range(10))


def test_every_place_is_as_likely_as_any_other():
    counts = Counter((i, Permutation(5, key_of("place", key))(i)) for key in range(2000) for i in range(5))

    # 400 expected in each of 25 cells, standard deviation 18
    assert len(counts) == 25
    assert all(abs(number - 400) < 90 for number in counts.values())


def test_another_key_is_another_order():
    orders = {tuple(Permutation(20, key)(i) for i in range(20)) for key in range(50)}

    assert len(orders) == 50


def test_keys_know_where_their_parts_end():
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of(1, "x") == key_of("1", "x")
    assert key_of("stays", 3) == 0x56BEDE268DC91CAF
