"""The screen of top-k against its slow twin, which sums every product in float64."""

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.index import shortlist
from mmembed.index.products import Queries, largest_norm, multiplies_bfloat16, whole_products
from mmembed.index.topk import top_k

CPU = torch.device("cpu")
SCREENS = ["float32"] + ["bfloat16"] * multiplies_bfloat16(CPU)
slow_top_k = functools.partial(top_k, screen="off")


def vectors(rows, width, seed):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def unit(rows, width, seed):
    return F.normalize(vectors(rows, width, seed))


def clustered():
    centres = unit(6, 48, 1)
    return F.normalize(centres[:5] + 0.1), F.normalize(centres[torch.arange(900) % 6] + 0.02 * vectors(900, 48, 2))


def duplicated():
    return unit(5, 48, 0), unit(40, 48, 1)[torch.arange(900) % 40]


def one_step_apart():
    """Copies of one vector in which one number has moved by one or two steps of float32."""
    queries, corpus = unit(5, 48, 0), unit(1, 48, 1).repeat(900, 1)
    for step in range(2):
        some = torch.arange(step, 900, 3 + step)
        corpus[some, some % 48] = torch.nextafter(corpus[some, some % 48], torch.tensor(9.0))
    return queries, corpus


def unlike_norms():
    """Norms from 1e-12 to 1e12, in an order in which the largest of a block is far above most of its vectors."""
    return unit(5, 48, 0) * torch.tensor([[1e-9], [1], [1e6], [0], [1]]), unit(900, 48, 1) * 10.0 ** (
        torch.arange(900)[:, None] * 7 % 25 - 12
    )


def cancelling():
    """Large numbers that cancel, so that the score is all rounding in float32."""
    corpus = vectors(900, 48, 1)
    corpus[:, 24:] = -corpus[:, :24] + 1e-6 * vectors(900, 24, 2)
    return vectors(5, 24, 0).repeat(1, 2), corpus


def tiny():
    return vectors(5, 48, 0) * 1e-22, vectors(900, 48, 1) * 1e-22


def huge():
    return vectors(5, 48, 0) * 1e18, vectors(900, 48, 1) * 1e17


KINDS = {
    "random": lambda: (unit(5, 48, 0), unit(900, 48, 1)),
    "all of one sign": lambda: (unit(5, 48, 0).abs(), -unit(900, 48, 1).abs()),
    "half precision": lambda: (unit(5, 48, 0).half(), unit(900, 48, 1).bfloat16()),
    "double precision": lambda: (unit(5, 48, 0), unit(900, 48, 1).double() / 3),
    "zeros": lambda: (unit(5, 48, 0), torch.zeros(900, 48)),
} | {made.__name__: made for made in (clustered, duplicated, one_step_apart, unlike_norms, cancelling, tiny, huge)}


def equal(found, expected):
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("block_rows", [3, 64, 2048])
@pytest.mark.parametrize("kind", KINDS)
def test_a_screen_changes_no_score_and_no_row(kind, block_rows, screen):
    queries, corpus = KINDS[kind]()

    found = top_k(queries, corpus, 7, block_rows=block_rows, screen=screen)

    equal(found, slow_top_k(queries, corpus, 7))


@pytest.mark.parametrize("screen", SCREENS)
@given(st.integers(1, 9), st.integers(80, 400), st.integers(1, 4), st.integers(20, 90), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_ties_late_and_excluded_targets_pass_a_screen(screen, num_queries, num_targets, k, block_rows, seed, data):
    width = data.draw(st.sampled_from([2, 5, 33]))
    corpus = vectors(num_targets, width, seed + 1)
    if data.draw(st.booleans()):
        corpus = corpus.round()[torch.randint(num_targets, (num_targets,))]
    queries = vectors(num_queries, width, seed)
    rows = st.lists(st.integers(0, num_targets - 1), unique=True, max_size=12)
    lists = {name: [data.draw(rows) for _ in queries] for name in ("lose_ties", "excluded")}
    # what is best without a rule is what the rule is about
    best = slow_top_k(queries, corpus, 2 * k)[1].tolist()
    lists["excluded"] = [sorted({*own, *first[::2]}) for own, first in zip(lists["excluded"], best, strict=True)]
    lists["lose_ties"] = [sorted({*own, *first}) for own, first in zip(lists["lose_ties"], best, strict=True)]

    found = top_k(queries, corpus, k, block_rows=block_rows, screen=screen, **lists)

    equal(found, slow_top_k(queries, corpus, k, block_rows=block_rows, **lists))


def test_all_but_few_targets_excluded_leaves_places_empty():
    out = [list(range(1, 900)), list(range(898)), list(range(900))]

    scores, rows = top_k(unit(3, 8, 0), unit(900, 8, 1), 3, block_rows=100, excluded=out, screen="float32")

    assert [sorted(row) for row in rows.tolist()] == [[-1, -1, 0], [-1, 898, 899], [-1, -1, -1]]
    assert scores[2].tolist() == [-torch.inf] * 3


@pytest.mark.parametrize(("screen", "size"), [("float32", 4), ("bfloat16", 2), ("off", 8)])
def test_what_is_computed_and_held_is_counted(screen, size):
    if screen == "bfloat16" and not multiplies_bfloat16(CPU):
        pytest.skip("this processor has no products in bfloat16")
    queries, corpus = unit(10, 64, 0), unit(5000, 64, 1)

    with counting() as work:
        top_k(queries, corpus, 5, block_rows=100, screen=screen)

    assert work["score_bytes"] == size * 10 * 5000 + 8 * work["topk_rescored"]
    assert work["score_bytes_at_once"] == size * 10 * 100
    assert work["topk_fallback_rows"] == 0
    # in float32 little more than the five, in bfloat16 few
    assert {4: 50 <= work["topk_rescored"] < 60, 2: 50 <= work["topk_rescored"] < 300, 8: True}[size]


def test_queries_that_no_screen_settles_are_scored_against_all_and_the_others_are_not():
    queries, corpus = unit(4, 64, 0), unit(5000, 64, 1)
    corpus[1000:3000] = queries[2]

    with counting() as work:
        found = top_k(queries, corpus, 5, block_rows=100, screen="float32")

    equal(found, slow_top_k(queries, corpus, 5))
    assert work["topk_fallback_rows"] == 1
    assert 15 <= work["topk_rescored"] < 20
    assert work["score_bytes"] == 4 * 4 * 5000 + 8 * (5000 + work["topk_rescored"])


@pytest.mark.skipif(not multiplies_bfloat16(CPU), reason="this processor has no products in bfloat16")
def test_queries_too_close_to_tell_in_bfloat16_are_screened_in_float32():
    queries, corpus = unit(4, 64, 0), unit(5000, 64, 1)
    corpus[2000:] = queries[2] + 1e-3 * corpus[2000:]

    with counting() as work:
        found = top_k(queries, corpus, 5, block_rows=100)

    equal(found, slow_top_k(queries, corpus, 5))
    assert work["topk_fallback_rows"] == 0
    assert work["score_bytes"] == (2 * 4 + 4 * 1) * 5000 + 8 * work["topk_rescored"]


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("kind", ["random", "cancelling", "unlike_norms", "tiny", "all of one sign"])
def test_no_score_of_the_screen_misses_the_exact_one_by_more_than_its_bound(kind, screen):
    queries, corpus = KINDS[kind]()
    rows = Queries.of(queries, getattr(torch, screen))

    with whole_products(CPU):
        scores = rows.scores(corpus).double()

    exact = (queries.double() @ corpus.double().T).float().double()
    allowed = rows.bounds(largest_norm(corpus))[:, None] + scores.abs() * rows.rounding
    assert ((scores - exact).abs() <= allowed).all()


def test_products_of_the_screen_are_whole_under_autocast_and_reduced_precision():
    queries, corpus = unit(5, 48, 0), unit(900, 48, 1)
    expected = slow_top_k(queries, corpus, 7)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), counting() as work:
            found = top_k(queries, corpus, 7, screen="float32")
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision(before)

    equal(found, expected)
    # with bfloat16 products the margin would be wrong and many would pass it
    assert work["topk_rescored"] < 45


@pytest.mark.parametrize("screen", [*SCREENS, "off"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(value, screen):
    corpus = unit(900, 8, 1)
    corpus[[700, 899], 3] = value

    with pytest.raises(InputError, match=r"top_k.corpus: .*got 2 rows with NaN or infinity, the first is row 700"):
        top_k(unit(2, 8, 0), corpus, 3, block_rows=100, screen=screen)
    with pytest.raises(InputError, match=r"top_k.queries: .*the first is row 700"):
        top_k(corpus, unit(900, 8, 1), 3, block_rows=100, screen=screen)


def test_a_corpus_is_checked_behind_the_block_at_which_a_screen_gives_up():
    corpus = torch.ones(900, 8)
    corpus[899, 0] = torch.nan

    with pytest.raises(InputError, match=r"the first is row 899"):
        top_k(unit(2, 8, 0), corpus, 3, block_rows=100)
    with pytest.raises(InputError, match=r"the first is row 899"):
        top_k(unit(0, 8, 0), corpus, 3, block_rows=100)


def test_a_screen_that_the_processor_has_no_products_for_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)

    with pytest.raises(InputError, match=r"top_k.screen: expected .* got bfloat16 on cpu"):
        top_k(unit(2, 8, 0), unit(900, 8, 1), 3, screen="bfloat16")


def test_an_unknown_screen_is_refused_and_a_near_one_named():
    with pytest.raises(InputError, match=r"top_k.screen: expected auto, bfloat16, .* got 'bfloat'; .*'bfloat16'"):
        top_k(unit(2, 8, 0), unit(9, 8, 1), 3, screen="bfloat")


@pytest.mark.parametrize("screen", [*SCREENS, "off"])
def test_vectors_that_train_are_ranked_without_a_graph(screen):
    queries, corpus = unit(2, 8, 0), unit(900, 8, 1)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: pytest.fail("a graph"), lambda tensor: tensor):
        found = top_k(queries.clone().requires_grad_(), corpus.clone().requires_grad_(), 3, screen=screen)

    equal(found, slow_top_k(queries, corpus, 3))


def test_places_of_the_shortlist_do_not_grow_with_the_corpus():
    assert shortlist.Shortlist(3, 5, CPU).columns.shape == (3, shortlist.room(5))


@pytest.mark.parametrize(("num_targets", "screened"), [(2560, False), (2561, True)])
def test_left_to_itself_a_small_corpus_is_scored_without_a_screen(num_targets, screened):
    queries, corpus = unit(7, 8, 0), unit(num_targets, 8, 1)

    with counting() as work:
        scores, rows = top_k(queries, corpus, 5)

    assert ("topk_rescored" in work) is screened
    assert screened or work["score_bytes"] == 8 * 7 * num_targets
    assert all(torch.equal(*both) for both in zip((scores, rows), slow_top_k(queries, corpus, 5), strict=True))
