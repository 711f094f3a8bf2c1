"""The bounded memory of prepared media."""

from mmembed.models.media_cache import MediaCache


def test_the_least_recently_used_goes_first():
    cache = MediaCache(30)
    for name in ("a", "b", "c"):
        cache.put(name, name.upper(), 10)

    cache.get("a")
    cache.put("d", "D", 10)

    assert [cache.get(name) for name in "abcd"] == ["A", None, "C", "D"]
    assert cache.bytes == 30


def test_one_large_value_drops_as_many_as_needed():
    cache = MediaCache(30)
    for name in ("a", "b", "c"):
        cache.put(name, name.upper(), 10)

    cache.put("d", "D", 20)

    assert [cache.get(name) for name in "abcd"] == [None, None, "C", "D"]
    assert cache.bytes == 30


def test_a_value_over_the_whole_bound_is_not_kept():
    cache = MediaCache(30)
    cache.put("a", "A", 10)

    cache.put("b", "B", 31)

    assert cache.get("b") is None
    assert cache.get("a") == "A"


def test_a_name_put_again_counts_once():
    cache = MediaCache(30)

    cache.put("a", "A", 10)
    cache.put("a", "other", 10)

    assert cache.get("a") == "A"
    assert cache.bytes == 10
