"""Batches of every kind, and the slow twin: every definition written out for one query and one target at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Contrastive, SourceRules


@st.composite
def random_batches(draw):
    """Up to five queries of few contents, classes and sources, with up to two positives and two hard negatives."""
    owner, positive = [], []
    queries = draw(st.integers(1, 5))
    for query in range(queries):
        kinds = [True] * draw(st.integers(1, 2)) + [False] * draw(st.integers(0, 2))
        owner += [query] * len(kinds)
        positive += draw(st.permutations(kinds))
    few = st.integers(0, 4)
    return Candidates(
        owner=torch.tensor(owner),
        positive=torch.tensor(positive),
        query_keys=torch.tensor([draw(few) for _ in range(queries)]),
        target_keys=torch.tensor([draw(few) for _ in owner]),
        classes=torch.tensor([draw(st.integers(-1, 1)) for _ in range(queries)]),
        sources=torch.tensor([draw(st.integers(0, 1)) for _ in range(queries)]),
    )


SCOPES = st.sampled_from(["batch", "source", "own"])
MAYBE = st.none() | st.booleans()
RULES = st.builds(
    SourceRules, temperature=st.sampled_from([None, 0.1, 0.3]), in_batch=st.none() | SCOPES, mask_classes=MAYBE
)
CHOICES = st.builds(
    Contrastive,
    temperature=st.just(0.2),
    directions=st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 1.0)]),
    positives=st.sampled_from(["log_sum", "each"]),
    share_negatives=st.booleans(),
    in_batch=SCOPES,
    mask_duplicates=st.booleans(),
    mask_classes=st.booleans(),
    margin=st.sampled_from([None, 0.0, 0.2, math.inf]),
    block_rows=st.sampled_from([1, 2, 8]),
)


class Twin:
    """The objective in loops; ``rules`` are those of the sources in order."""

    def __init__(self, candidates, settings, rules):
        self.settings, self.rules = settings, list(rules)
        self.owner, self.positive = candidates.owner.tolist(), candidates.positive.tolist()
        self.query_keys, self.target_keys = candidates.query_keys.tolist(), candidates.target_keys.tolist()
        self.classes, self.sources = candidates.classes.tolist(), candidates.sources.tolist()
        self.queries, self.targets = range(len(self.query_keys)), range(len(self.owner))

    def rule(self, query, name):
        own = getattr(self.rules[self.sources[query]], name)
        return getattr(self.settings, name) if own is None else own

    def positives_of(self, query):
        return [j for j in self.targets if self.owner[j] == query and self.positive[j]]

    def in_scope(self, decider, other):
        scope = self.rule(decider, "in_batch")
        return scope == "batch" or (scope == "source" and self.sources[decider] == self.sources[other])

    def compared(self, query, target):
        if self.owner[target] == query:
            return not self.positive[target]
        shared = self.positive[target] or self.settings.share_negatives
        return shared and self.in_scope(query, self.owner[target])

    def mirror_compared(self, target, query):
        return self.owner[target] != query and self.in_scope(self.owner[target], query)

    def duplicate(self, query, target):
        copy = any(self.target_keys[target] == self.target_keys[j] for j in self.positives_of(query))
        equal_query = self.query_keys[self.owner[target]] == self.query_keys[query]
        return copy or (self.positive[target] and equal_query)

    def of_one_class(self, query, target):
        equal = self.classes[query] == self.classes[self.owner[target]] != -1
        return equal and self.positive[target]

    def masked(self, decider, query, target):
        duplicate = self.settings.mask_duplicates and self.duplicate(query, target)
        return duplicate or (self.rule(decider, "mask_classes") and self.of_one_class(query, target))

    def too_close(self, decider, cosines, query, target):
        if self.settings.margin is None:
            return False
        best = max(cosines[decider, j].item() for j in self.positives_of(decider))
        return cosines[query, target].item() > best + self.settings.margin

    def negatives_of_query(self, i, cosines):
        return [
            j
            for j in self.targets
            if self.compared(i, j) and not self.masked(i, i, j) and not self.too_close(i, cosines, i, j)
        ]

    def negatives_of_positive(self, p, cosines):
        o = self.owner[p]
        return [
            i
            for i in self.queries
            if self.mirror_compared(p, i) and not self.masked(o, i, p) and not self.too_close(o, cosines, i, p)
        ]

    def temperature(self, query):
        return self.rule(query, "temperature")

    def losses(self, queries, targets):
        """The loss, with gradient, and that of each query."""
        cosines = queries @ targets.T
        answers = [(i, p) for i in self.queries for p in self.positives_of(i)]

        def of(rights, wrongs, decider):
            rights, wrongs = (
                [(cosines[pair] / self.temperature(decider)).exp() for pair in pairs] for pairs in (rights, wrongs)
            )
            return -(sum(rights) / (sum(rights) + sum(wrongs))).log()

        forward = {}
        for i in self.queries:
            wrongs = [(i, j) for j in self.negatives_of_query(i, cosines)]
            rights = [(i, p) for p in self.positives_of(i)]
            groups = [rights] if self.settings.positives == "log_sum" else [[right] for right in rights]
            forward[i] = [of(group, wrongs, i) for group in groups]
        backward = [of([(i, p)], [(k, p) for k in self.negatives_of_positive(p, cosines)], i) for i, p in answers]
        terms = [loss for losses in forward.values() for loss in losses]
        mean = [sum(some) / len(some) for some in (terms, backward)]
        loss = sum(weight * term for weight, term in zip(self.settings.directions, mean, strict=True))
        return loss, [(sum(losses) / len(losses)).item() for losses in forward.values()]

    def shares(self, queries, targets):
        """Comparisons masked, and queries without negatives, as shares."""
        cosines = queries @ targets.T
        out = [
            self.compared(i, j) and (self.masked(i, i, j) or self.too_close(i, cosines, i, j))
            for i in self.queries
            for j in self.targets
        ]
        alone = [not self.negatives_of_query(i, cosines) for i in self.queries]
        return sum(out) / len(out), sum(alone) / len(alone)


@pytest.fixture(scope="session")
def batches():
    return random_batches()


@pytest.fixture(scope="session")
def choices():
    return CHOICES


@pytest.fixture(scope="session")
def source_rules():
    """Rules of two sources by name."""
    return st.fixed_dictionaries({"first": RULES, "second": RULES})


@pytest.fixture(scope="session")
def twin():
    return Twin


@pytest.fixture(scope="session")
def unit():
    """Unit rows of random numbers, the same for the same shape and seed."""

    def make(rows, seed, dim=8, dtype=torch.float64):
        return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=1)

    return make


@pytest.fixture(scope="session")
def distinct():
    """Candidates of queries with one positive each and so many hard negatives, no content twice."""

    def make(queries, hard=0):
        targets = queries * (1 + hard)
        return Candidates(
            owner=torch.arange(queries).repeat(1 + hard),
            positive=torch.arange(targets) < queries,
            query_keys=torch.arange(queries),
            target_keys=torch.arange(targets),
            classes=torch.full((queries,), -1),
            sources=torch.zeros(queries, dtype=torch.long),
        )

    return make
